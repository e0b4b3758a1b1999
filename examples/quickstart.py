"""The smallest federation: three hospitals, one blind sum, one model.

python examples/quickstart.py
"""

import numpy as np
from sklearn.datasets import load_digits

from secure_afl import AFL, Additive, ClientData, Federation

digits = load_digits()
features = digits.data.astype(np.float32)
labels = digits.target.astype(np.int64)
hospitals = ("north", "south", "west")

clients = [
    ClientData(name, features[start:1500:3], labels[start:1500:3])
    for start, name in enumerate(hospitals)
]
result = Federation(method=AFL(), protocol=Additive()).run(clients)

right = result.model.predict(features[1500:]) == labels[1500:]
print(f"accuracy on rows of nobody's: {right.mean():.1%}")
print(f"protects {result.report.protects}")
print(f"rows in the sum: {result.statistics.rows}, exact: {result.report.exact}")
for warning in result.report.warnings:
    print("warning:", warning)
