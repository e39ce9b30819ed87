"""Every operation, setting, metric and loss reason is found in the docs."""

from tests.reference import PAGE, reference


def test_the_reference_is_what_the_code_says() -> None:
    assert PAGE.read_text() == reference(), "run: python -m tests.reference"
