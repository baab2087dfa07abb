"""One file per data set: what turns it into the layout of `mmrec.data`.

`movielens.py` (with `movielens_csv.py` and `chronology.py`), `synthetic.py` (with
`click_model.py` and `covers.py`: clicks whose true probabilities are known)."""
