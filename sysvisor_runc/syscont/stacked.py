"""The order of mounts where two share a place. Loaded only then."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Mount


def order(given: list[Mount], ranked: list[tuple[int, int, str]]) -> list[Mount]:
    """As `sort_mounts` says; `ranked` has the (rank, index, place) of each mount, sorted.

    A second mount on top of a place comes in its own turn: whatever was mounted below that place before is its content,
    or is covered, as the spec has it.
    """
    waiting: dict[str, list[int]] = {}  # by place: indexes of `given`, the next one last
    for _, index, place in sorted(ranked, key=lambda entry: -entry[1]):
        waiting.setdefault(place, []).append(index)
    bare = set(waiting)
    ordered: list[Mount] = []
    for _, turn, whole in ranked:
        for place in _on_the_way(whole):
            indexes = waiting.get(place, [])
            # Nothing is there yet that this one could have been meant to be mounted in: so all of it comes first.
            limit = turn if place not in bare or (indexes and indexes[-1] <= turn) else len(given)
            bare.discard(place)
            while indexes and indexes[-1] <= limit:
                ordered.append(given[indexes.pop()])
    return ordered


def _on_the_way(place: str) -> list[str]:
    """`/`, each directory above, and the place itself."""
    above = [place[:index] for index, letter in enumerate(place) if letter == "/" and index]
    return ["/", *above] if place == "/" else ["/", *above, place]
