"""A click model that is known exactly, so that a ranker can be held against the truth.

N items, K kinds of cover and K kinds of words, U users.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmrec.errors import finite
from mmrec.io.parquet import Ints

Floats = NDArray[np.float64]
KINDS = 5
_FAVOURITE = float(np.sqrt(KINDS - 1))  # one kind of K; all others -1 / that: unit variance


@dataclass(frozen=True)
class ClickModel:
    """logit(u, i) = b + w_id q_i + w_im a_u[c_i] + w_tx t_u[s_i] + w_x X[c_i, s_i]
                   + w_p P_u[c_i, s_i] + w_o o_i + w_l e_u[c_i].

    Each term has zero mean and unit variance over items and users, so a weight is the standard
    deviation that the term gives to the logit; e_u varies less by the kinds that u has not met.

    Attributes:
        bias: b, the logit of an average row.
        id_weight: w_id, of the quality q_i that only an item's id (and clicks) can tell.
        image_weight: w_im, of the user's taste a_u for the kind c_i of the cover.
        text_weight: w_tx, of the user's taste t_u for the kind s_i of the words.
        interaction_weight: w_x, of X, how well cover and words suit each other: a matrix whose
            rows and columns sum to zero, so neither modality alone says anything about it.
        pair_weight: w_p, of P_u, the user's taste for combinations: words of kind c + d_u (mod K)
            on covers of kind c. Neither modality alone says anything about it, nor do the means of
            covers and of words over a history.
        popularity_weight: w_o, of the item's popularity o_i (its views_level shows it).
        liked_weight: w_l, of e_u, what the user thought of earlier items with that kind of cover:
            1 liked, -1 disliked, 0 where the history has none. Which items are in a history says
            nothing about it.
    """

    bias: float = -1.4
    id_weight: float = 0.4
    image_weight: float = 1.25
    text_weight: float = 1.25
    interaction_weight: float = 0.9
    pair_weight: float = 0.0
    popularity_weight: float = 0.3
    liked_weight: float = 0.0

    def __post_init__(self) -> None:
        finite(-float("inf"), **vars(self))


@dataclass(frozen=True)
class LatentItems:
    """The truth of N items: cover kind, word kind (N,) int64; quality, popularity (N,)."""

    cover: Ints
    words: Ints
    quality: Floats
    popularity: Floats
    suits: Floats  # X[cover, words] of each item


@dataclass(frozen=True)
class LatentUsers:
    """Tastes of U users: (U, K) each, sqrt(K - 1) for the favourite kind, -1/sqrt(K - 1) else.

    `pair_shift` (U,) is d_u, which words a user likes on a cover. `opinion` (U, K), 1 or -1, is
    what a user thinks of an item with that kind of cover after having met one.
    """

    cover_taste: Floats
    words_taste: Floats
    pair_shift: Ints
    opinion: Ints


def draw_items(count: int, rng: np.random.Generator) -> LatentItems:
    """Draw `count` items; kinds are independent of each other, of quality and of popularity."""
    cover = rng.integers(0, KINDS, count)
    words = rng.integers(0, KINDS, count)
    matrix = rng.standard_normal((KINDS, KINDS))
    matrix -= matrix.mean(axis=0, keepdims=True)
    matrix -= matrix.mean(axis=1, keepdims=True)
    matrix /= matrix.std()
    return LatentItems(
        cover=cover,
        words=words,
        quality=rng.standard_normal(count),
        popularity=rng.standard_normal(count),
        suits=matrix[cover, words],
    )


def draw_users(count: int, rng: np.random.Generator) -> LatentUsers:
    """Draw `count` users, each with one favourite kind of cover and one of words."""
    (apart,) = rng.spawn(1)  # what was drawn before there were shifts stays as it was
    return LatentUsers(
        cover_taste=_tastes(count, rng),
        words_taste=_tastes(count, rng),
        pair_shift=apart.integers(0, KINDS, count),
        opinion=2 * apart.integers(0, 2, (count, KINDS)) - 1,
    )


def logits(
    model: ClickModel, items: LatentItems, users: LatentUsers, user: Ints, item: Ints
) -> Floats:
    """The true click logits of pairs, without the term of earlier items.

    `user` and `item` are index arrays of one shape.
    """
    suits_user = (items.words[item] - items.cover[item] - users.pair_shift[user]) % KINDS == 0
    return (
        model.bias
        + model.id_weight * items.quality[item]
        + model.image_weight * users.cover_taste[user, items.cover[item]]
        + model.text_weight * users.words_taste[user, items.words[item]]
        + model.interaction_weight * items.suits[item]
        + model.pair_weight * np.where(suits_user, _FAVOURITE, -1.0 / _FAVOURITE)
        + model.popularity_weight * items.popularity[item]
    )


def by_kind(
    model: ClickModel, items: LatentItems, users: LatentUsers, user: Ints, shown: Ints
) -> tuple[Floats, Ints, Floats]:
    """exp of the logits of users (U, 1) and the items `shown`, as share[u, kind_i] · weight_i.

    A kind is that of cover and words together, K² in all; what a user thinks of an item depends
    on its kind alone.
    """
    whole = np.arange(KINDS * KINDS)
    typical = LatentItems(
        cover=whole // KINDS,
        words=whole % KINDS,
        quality=np.zeros(len(whole)),
        popularity=np.zeros(len(whole)),
        suits=np.zeros(len(whole)),
    )
    share = np.exp(logits(model, typical, users, user, whole[None, :]))
    own = model.id_weight * items.quality + model.interaction_weight * items.suits
    weight = np.exp((own + model.popularity_weight * items.popularity)[shown])
    return share, (items.cover * KINDS + items.words)[shown], weight


def liked(items: LatentItems, users: LatentUsers, histories: Ints) -> NDArray[np.int8]:
    """(U, L) 1 where a user liked the item of the history, 0 where not, and at the padding.

    `histories` (U, L) holds item ids: 1 + the place among `items`, 0 for padding.
    """
    kind = items.cover[np.maximum(histories - 1, 0)]
    opinion = np.take_along_axis(users.opinion, kind, axis=1)
    return ((histories > 0) & (opinion > 0)).astype(np.int8)


def echo(items: LatentItems, users: LatentUsers, histories: Ints, user: Ints, item: Ints) -> Ints:
    """e_u[c_i] of pairs: 1 where earlier items of that kind of cover were liked, -1, or 0."""
    met = np.zeros_like(users.opinion)
    who, place = np.nonzero(histories)
    met[who, items.cover[histories[who, place] - 1]] = 1
    kind = items.cover[item]
    values: Ints = (met * users.opinion)[user, kind]
    return values


def probability(logit: Floats) -> Floats:
    """1 / (1 + e^-logit)."""
    values: Floats = 1.0 / (1.0 + np.exp(-logit))
    return values


def probability_unaware(logit: Floats, term: Floats) -> Floats:
    """What is known of a click at logit + term by who cannot tell the sign of the term.

    Opinions are fair coins that nothing but `liked` shows: the mean of both cases.
    """
    return (probability(logit + term) + probability(logit - term)) / 2


def draw_distinct(weights: Floats, size: int, rng: np.random.Generator) -> Ints:
    """Draw for each row of `weights` (R, N) `size` distinct columns, likelier where larger.

    Gumbel top-k: the `size` largest of log w + Gumbel noise are a draw without replacement with
    probabilities proportional to w (arXiv:1903.06059).
    """
    noise = rng.gumbel(size=weights.shape)
    keys = np.log(weights) + noise
    top = np.argpartition(-keys, size - 1, axis=1)[:, :size]
    order = np.argsort(-np.take_along_axis(keys, top, axis=1), axis=1)
    return np.take_along_axis(top, order, axis=1)


def draw_distinct_by_kind(
    share: Floats, kind: Ints, weight: Floats, size: int, rng: np.random.Generator
) -> Ints:
    """As `draw_distinct` of the weights share[u, kind_i] · weight_i, without a table of them.

    Items are drawn with replacement, a kind and then an item of it, and what a row has already is
    passed over: the law of drawing without replacement. For many more items than `size`.

    Args:
        share: (U, G) of each user and kind.
        kind, weight: (N,) of each item.

    Returns:
        (U, size) places among the N items.
    """
    order = np.argsort(kind, kind="stable")
    ends = np.cumsum(weight[order])  # of items, kind by kind
    last = np.searchsorted(kind[order], np.arange(share.shape[1]), side="right")
    until = np.where(last > 0, ends[np.maximum(last - 1, 0)], 0.0)
    mass = np.diff(until, prepend=0.0)
    chosen = np.cumsum(share * mass, axis=1)  # (U, G)
    drawn = np.zeros((len(share), 0), dtype=np.int64)
    while True:
        total, more = chosen[:, -1:], 2 * size
        where = rng.random((len(share), more)) * total
        group = (where[..., None] >= chosen[:, None, :]).sum(-1).clip(max=share.shape[1] - 1)
        inside = (until - mass)[group] + rng.random(group.shape) * mass[group]
        place = np.searchsorted(ends, inside, side="right").clip(max=len(order) - 1)
        drawn = np.concatenate([drawn, order[place]], axis=1)
        new = _first_of_row(drawn)
        if (new.sum(axis=1) >= size).all():
            break
    kept = np.argsort(~new, axis=1, kind="stable")[:, :size]
    return np.take_along_axis(drawn, kept, axis=1)


def _first_of_row(values: Ints) -> NDArray[np.bool_]:
    """(R, M) True where a value stands for the first time in its row."""
    order = np.argsort(values, axis=1, kind="stable")
    ascending = np.take_along_axis(values, order, axis=1)
    new = np.ones(values.shape, dtype=np.bool_)
    new[:, 1:] = ascending[:, 1:] != ascending[:, :-1]
    found = np.empty_like(new)
    np.put_along_axis(found, order, new, axis=1)
    return found


def _tastes(count: int, rng: np.random.Generator) -> Floats:
    favourite = np.arange(KINDS) == rng.integers(0, KINDS, count)[:, None]  # (U, K)
    tastes: Floats = np.where(favourite, _FAVOURITE, -1.0 / _FAVOURITE)
    return tastes
