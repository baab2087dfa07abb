"""One file per data set: what turns it into the layout of `mmrec.data`, with its schema.

`movielens.py` (with `movielens_csv.py`, `movielens_clicks.py` and `chronology.py`), `synthetic.py`
(with `click_model.py` and `covers.py`: clicks whose true probabilities are known)."""
