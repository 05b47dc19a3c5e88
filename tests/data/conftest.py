"""Tokenizers small enough to be made in a test, and the real ones where they are at hand."""

import json
from pathlib import Path

import pytest
from tiny_tokenizers import CHATML, byte_level, sentence_piece

ASSETS = Path(__file__).parents[3] / "shared" / "assets"


@pytest.fixture(scope="session")
def plain():
    """Byte level, no BOS put first, no chat template."""
    return byte_level()


@pytest.fixture(scope="session")
def with_bos():
    """Byte level, BOS put first by default, no chat template."""
    return byte_level(bos=True)


@pytest.fixture(scope="session")
def spaced():
    """SentencePiece's way: BOS and a space put first."""
    return sentence_piece()


@pytest.fixture(scope="session")
def chatml():
    """Byte level with a ChatML template; no BOS token at all."""
    return byte_level(bos_token=None, chat_template=CHATML)


@pytest.fixture(scope="session")
def real():
    """Name -> real tokenizer; skips when it is not there."""
    from jalign.data.chat import load_tokenizer

    def load(name):
        folder = ASSETS / "tokenizers" / name
        if not folder.exists():
            pytest.skip(f"no tokenizer {name} beside the checkout")
        return load_tokenizer(folder)

    return load


@pytest.fixture(scope="session")
def real_data():
    """Name -> path of a real data file; skips when it is not there."""

    def find(name):
        path = ASSETS / "data" / f"{name}.jsonl.gz"
        if not path.exists():
            pytest.skip(f"no data set {name} beside the checkout")
        return path

    return find


@pytest.fixture
def write(tmp_path):
    """Writes rows as JSON Lines and returns the path."""

    def write_rows(name, rows):
        path = tmp_path / name
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", "utf-8")
        return path

    return write_rows
