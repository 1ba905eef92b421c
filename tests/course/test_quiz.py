"""Questions at the end of notebooks: sealed, one right answer each, one at least for every pitfall."""

import json
import re

import nbformat
import pytest

from fusmae_lite.core.config import project_root
from fusmae_lite.core.errors import InputError
from fusmae_lite.course.exercises import quiz, seal

NOTEBOOKS = project_root() / "notebooks"
SEALED = json.loads((NOTEBOOKS / "exercises" / "quiz.json").read_text(encoding="utf-8"))


def right(number: str, question: str) -> list[str]:
    return [letter for letter in "abcd" if seal(number, question, letter) == SEALED[number][question][0]]


def test_the_right_letters_are_spread():
    letters = [right(number, question) for number, questions in SEALED.items() for question in questions]
    assert all(len(found) == 1 for found in letters)
    assert max(letters.count([letter]) for letter in "abcd") < 0.65 * len(letters)


@pytest.mark.parametrize("number", SEALED)
def test_questions_have_four_answers_and_cover_the_pitfalls(number: str):
    cells = nbformat.read(next(NOTEBOOKS.glob(f"{number}_*.ipynb")), as_version=4).cells
    prose = [cell.source for cell in cells if cell.cell_type == "markdown"]
    (questions,) = [text for text in prose if text.startswith("## Questions")]
    assert len(re.findall(r"^\*\*\d\.\*\*", questions, re.M)) == len(SEALED[number])
    for letter in "abcd":
        assert len(re.findall(rf"^- {letter}\) ", questions, re.M)) == len(SEALED[number])
    assert len(SEALED[number]) >= sum(len(re.findall(r"^> \*\*Pitfall", text, re.M)) for text in prose)
    (asked,) = [cell.source for cell in cells if cell.source.startswith("quiz(")]
    assert asked == f'quiz("{number}", ' + ", ".join(f'{question}="?"' for question in SEALED[number]) + ")"


def test_a_reader_is_told(capsys: pytest.CaptureFixture[str]):
    (letter,) = right("00", "q1")
    quiz("00", q1=letter.upper() + " ", q2="?")
    quiz("00", q1="abcd".replace(letter, "")[0])
    assert capsys.readouterr().out.splitlines() == [
        "q1: right",
        "q2: to do: a, b, c or d in place of ?",
        f"q1: no; read {SEALED['00']['q1'][1]} again",
    ]
    with pytest.raises(InputError, match="notebook 00 has no question 'q9'; it has q1, q2, q3"):
        quiz("00", q9="a")
