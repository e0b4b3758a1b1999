"""Write scikit-learn's digits as folders: three sites, and a test set.

python examples/write_sites.py
"""

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

digits = load_digits()
for index, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
    site = ("north", "south", "west")[index % 3]
    # Nobody knows who wrote which digit: the names are made up, 25 images of each or so.
    name = f"p{index // 75:02}_{index}.png"
    path = Path("sites", site, str(label), name) if index < 1500 else Path("test", str(label), name)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((image * 15.9).astype(np.uint8)).save(path)
print("written: sites/north, sites/south, sites/west, test")
