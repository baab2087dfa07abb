"""One file per data set: what turns it into the layout of `mmrec.data`, with its schema.

`movielens.py` (with `movielens_csv.py`; rows are made by `mmrec.data.prepare`), `synthetic.py`
(with `click_model.py` and `covers.py`: clicks whose true probabilities are known)."""
