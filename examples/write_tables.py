"""Write scikit-learn's diabetes study as CSV files: three hospitals, new patients, a dictionary.

python examples/write_tables.py
"""

from pathlib import Path

from sklearn.datasets import load_diabetes

DICTIONARY = """\
missing = ["NA"]

[columns.patient]
type = "id"

[columns.age]
type = "number"
unit = "years"
range = [0, 120]

[columns.sex]
type = "category"
categories = ["1", "2"]   # the study does not say which is which

[columns.bmi]
type = "number"
unit = "kg/m²"
range = [10, 60]

[columns.pressure]
type = "number"
unit = "mmHg"
range = [40, 180]
missing = "drop"

[columns.glucose]
type = "number"
unit = "mg/dl"
range = [40, 200]

[columns.progression]
type = "number"
range = [0, 400]

[columns.fast]
type = "category"
categories = ["no", "yes"]
"""

study = load_diabetes(as_frame=True, scaled=False)
frame = study.data[["age", "sex", "bmi", "bp", "s6"]].rename(
    columns={"bp": "pressure", "s6": "glucose"}
)
frame["sex"] = frame["sex"].astype(int)
frame["progression"] = study.target
frame["fast"] = ["yes" if value > 150 else "no" for value in study.target]
frame.insert(0, "patient", [f"p{number:03}" for number in range(len(frame))])
Path("sites").mkdir(exist_ok=True)
for place, name in enumerate(("north", "south", "west")):
    rows = frame.iloc[:390].iloc[place::3]
    if name == "west":
        rows = rows.astype({"pressure": object})
        rows.iloc[5, rows.columns.get_loc("pressure")] = "NA"
    rows.to_csv(Path("sites", f"{name}.csv"), index=False)
frame.iloc[390:].to_csv("new.csv", index=False)
Path("dictionary.toml").write_text(DICTIONARY, encoding="utf-8")
print("written: sites/north.csv, sites/south.csv, sites/west.csv, new.csv, dictionary.toml")
