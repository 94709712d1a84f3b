"""Which categories a picture was annotated for: what is not labelled there need not be absent.

A record of a COCO json's ``images`` says so in one of two ways:

- ``labelled_categories``: "all", names separated by commas, or a list of names or ids;
- as LVIS does (Gupta et al., "LVIS", 2019, section 3): ``neg_category_ids`` are known to be absent, those that occur in
  the picture's annotations are labelled, and ``not_exhaustive_category_ids`` are labelled in part.

The first wins where a record has both. Without any of these keys every category is known.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any

LABELLED = "labelled_categories"
NEGATIVE, NOT_EXHAUSTIVE = "neg_category_ids", "not_exhaustive_category_ids"
EVERY = "all"


class Labels:
    """Reads what the records of one json say.

    Args:
        names: of the json's categories, by id.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        self._names = names
        self._ids: dict[str, set[int]] = {}
        for number, name in names.items():
            self._ids.setdefault(name, set()).add(number)

    def known(self, image: Mapping[str, Any], occurring: Collection[int]) -> frozenset[int] | None:
        """The categories of which a picture shows no object but those annotated.

        Args:
            image: its record.
            occurring: ids of the categories in its annotations.

        Returns:
            Category ids; None where all are known.

        Raises:
            ValueError: if a key holds something else than it should, or a category that the json does not have.
        """
        known = self._named(image[LABELLED]) if LABELLED in image else self._of_lvis(image, occurring)
        return None if len(known) == len(self._names) else frozenset(known)

    def _named(self, value: Any) -> set[int]:
        if isinstance(value, str):
            if value.strip() == EVERY:
                return set(self._names)
            # A category may have a comma in its name.
            value = [value] if value in self._ids else [part.strip() for part in value.split(",")]
        if not isinstance(value, list):
            raise ValueError(f"{LABELLED} is {value!r}; expected {_EXPECTED}")
        known: set[int] = set()
        for item in value:
            if isinstance(item, str) and item in self._ids:
                known |= self._ids[item]
            elif type(item) is int and item in self._names:
                known.add(item)
            else:
                near = difflib.get_close_matches(item, self._ids, n=1) if isinstance(item, str) else []
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                raise ValueError(f"{LABELLED} has {item!r}, no category of this file{hint}; expected {_EXPECTED}")
        return known

    def _of_lvis(self, image: Mapping[str, Any], occurring: Collection[int]) -> set[int]:
        known = self._listed(image, NEGATIVE) | set(occurring) if NEGATIVE in image else set(self._names)
        return known - self._listed(image, NOT_EXHAUSTIVE) if NOT_EXHAUSTIVE in image else known

    def _listed(self, image: Mapping[str, Any], key: str) -> set[int]:
        value = image[key]
        if not isinstance(value, list):
            raise ValueError(f"{key} is {value!r}; expected a list of category ids")
        if strange := [item for item in value if type(item) is not int or item not in self._names]:
            raise ValueError(f"{key} has {strange[0]!r}, no category of this file; expected ids of its categories")
        return set(value)


_EXPECTED = f"{EVERY!r}, or names or ids of the file's categories"
