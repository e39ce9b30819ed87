"""Words of titles, searches and keywords, folded alike so that they can be compared."""

import re
import unicodedata
from collections.abc import Sequence

WORD = re.compile(r"[^\W_]+")
QUERY_WORD_COUNT_MAX = 16


def fold(text: str) -> str:
    """Return the text in lower case and without accents.

    >>> fold("Été À LA PLAGE")
    'ete a la plage'
    """
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join([letter for letter in decomposed if not unicodedata.combining(letter)])


def words_of(text: str) -> list[str]:
    """Return the words of a text in their order.

    >>> words_of("Trail-running: men's, 42")
    ['trail', 'running', 'men', 's', '42']
    """
    return WORD.findall(fold(text))


def words_of_each(texts: Sequence[str]) -> list[list[str]]:
    """Return the words of every text, faster than one by one."""
    lines = fold("\n".join([text.replace("\n", " ") for text in texts])).split("\n") if texts else []
    return [WORD.findall(line) for line in lines]


class KeywordIndex:
    """Finds the keywords a search matches.

    `exact`: the search is the keyword. `phrase`: the keyword's words stand in it side by side. `broad`: all of
    them stand in it, anywhere. A broad keyword is filed under its rarest word, so that a common word does not
    make a search slow.
    """

    def __init__(self, keywords: Sequence[tuple[str, str]]) -> None:
        """File the keywords, given as (match, words joined by spaces) in the order of their rows."""
        self._exact: dict[str, int] = {}
        self._phrase: dict[str, int] = {}
        self._phrase_length_max = 0
        broad: list[tuple[int, frozenset[str]]] = []
        uses: dict[str, int] = {}
        for row, (match, text) in enumerate(keywords):
            if match == "exact":
                self._exact[text] = row
            elif match == "phrase":
                self._phrase[text] = row
                self._phrase_length_max = max(self._phrase_length_max, text.count(" ") + 1)
            else:
                words = frozenset(text.split(" "))
                broad.append((row, words))
                for word in words:
                    uses[word] = uses.get(word, 0) + 1
        self._broad: dict[str, list[tuple[int, frozenset[str]]]] = {}
        for row, words in broad:
            self._broad.setdefault(min(words, key=lambda word: (uses[word], word)), []).append((row, words))

    def matches(self, words: Sequence[str]) -> list[int]:
        """Return the rows of the keywords a search of these words matches, ascending."""
        words = words[:QUERY_WORD_COUNT_MAX]
        found: list[int] = []
        exact = self._exact.get(" ".join(words))
        if exact is not None:
            found.append(exact)
        for start in range(len(words) if self._phrase else 0):
            for end in range(start + 1, min(len(words), start + self._phrase_length_max) + 1):
                phrase = self._phrase.get(" ".join(words[start:end]))
                if phrase is not None:
                    found.append(phrase)
        searched = set(words)
        for word in searched if self._broad else ():
            found += [row for row, needed in self._broad.get(word, ()) if needed <= searched]
        return sorted(set(found))
