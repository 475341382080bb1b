"""Text to windows of tokens: corpora, tokenizers, packing; `load_data` does it all."""

from loopscale.data.corpora import CORPORA, Corpus, CorpusId, load_corpus
from loopscale.data.encoding import encode_prompt, end_of_text, vocabulary_size
from loopscale.data.loading import Data, load_data, load_stream
from loopscale.data.streaming import StreamedWindows
from loopscale.data.token_cache import tokenize
from loopscale.data.tokenization import load_tokenizer, require_vocabulary, words_tokenizer
from loopscale.data.tokens import Tokens
from loopscale.data.windows import Windows, batches, collate

__all__ = [
    "CORPORA",
    "Corpus",
    "CorpusId",
    "Data",
    "StreamedWindows",
    "Tokens",
    "Windows",
    "batches",
    "collate",
    "encode_prompt",
    "end_of_text",
    "load_corpus",
    "load_data",
    "load_stream",
    "load_tokenizer",
    "require_vocabulary",
    "tokenize",
    "vocabulary_size",
    "words_tokenizer",
]
