"""From a history and a target to one vector. First: `sequence.py`, the contract and light encoders.

`transformer` is the deep one; `affinity` and `simtier` compare frozen content; `recency` weighs by
age, and with `affinity` takes shares of `signs`; `tokens` leaves padding out; `shared` is the
contract of one history and many targets.
"""
