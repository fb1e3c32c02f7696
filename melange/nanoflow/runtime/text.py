"""Text in and out of token ids: a folder's tokenizer.json, or bare numbers where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from melange.errors import InputError, MissingExtraError

UNFINISHED = "\ufffd"  # what decoding gives for the first bytes of a character


class TextCodec:
    """Encodes prompts and decodes outputs. Without a tokenizer a token's text is its number after a blank."""

    def __init__(self, tokenizer: Any | None = None) -> None:
        self._tokenizer = tokenizer

    @classmethod
    def of_folder(cls, folder: Path | None) -> TextCodec:
        """The folder's tokenizer, if it has one."""
        file = None if folder is None else folder / "tokenizer.json"
        if file is None or not file.exists():
            return cls()
        try:
            from tokenizers import Tokenizer
        except ModuleNotFoundError:
            raise MissingExtraError.of("tokenizers", "nanoflow", "reading the model's tokenizer") from None
        try:
            return cls(Tokenizer.from_file(str(file)))
        except Exception as error:  # the tokenizers package raises bare Exception for a bad file
            raise InputError(f"not a tokenizer: {error}", file=file) from None

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a prompt, special tokens added as the tokenizer does; InputError without a tokenizer."""
        if self._tokenizer is None:
            raise InputError("the model has no tokenizer", fix="send the prompt as a list of token ids")
        try:
            return tuple(self._tokenizer.encode_batch_fast([text])[0].ids)  # encode() holds up every other thread
        except (UnicodeEncodeError, TypeError):  # half of a surrogate pair, which JSON can spell
            raise InputError("the prompt is not Unicode text", fix="send well-formed text") from None

    def decode(self, tokens: list[int]) -> str:
        """Text of these tokens, special tokens left out."""
        if self._tokenizer is None:
            return "".join(f" {token}" for token in tokens)
        text: str = self._tokenizer.decode(tokens)
        return text


class TextStream:
    """Turns one request's tokens into text piece by piece; bytes of an unfinished character wait for the rest."""

    def __init__(self, codec: TextCodec) -> None:
        self._codec = codec
        self._tokens: list[int] = []
        self._shown_from = 0
        self._shown_to = 0

    def push(self, token: int, *, last: bool) -> str:
        """The text that this token completes, often the token's own, sometimes none."""
        self._tokens.append(token)
        # Tokens already shown give the new ones their context: a tokenizer may write a blank only between two.
        before = self._codec.decode(self._tokens[self._shown_from : self._shown_to])
        now = self._codec.decode(self._tokens[self._shown_from :])
        if now.endswith(UNFINISHED) and not last:
            return ""
        self._shown_from, self._shown_to = self._shown_to, len(self._tokens)
        return now[len(before) :]
