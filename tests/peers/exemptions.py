"""The cases of peers' suites that pass directly and need not pass through the line, each with its reason."""

from __future__ import annotations

from tests.peers.outcomes import Bar, Exempt

_FLOOR = "wants a context of 30 tokens so that texts are cut or refused; the line gives none below its floor"

OLLAMA = (
    Exempt("TestEmbedding/embed-truncation/*/truncation_batch", _FLOOR),
    Exempt("TestEmbedding/embed-status-code/*/truncation_error_status_code", _FLOOR),
    Exempt("TestEmbedding/embed-status-code/*/batch_truncation_error_status_code", _FLOOR),
)
OLLAMA_BARS = (Bar("Test", direct=45, through=40),)

_CHAT = "unit/test_chat_completion.py"
_RESPONSES = "unit/test_compat_oai_responses.py"
_EMBEDDING = "unit/test_embedding.py"
_TOKENS = "an input of token ids, or with some in it: only texts go through the line"

LLAMA_CPP = (
    Exempt(f"{_CHAT}::test_chat_completion_with_timings_per_token", "`timings` are llama.cpp's own"),
    Exempt(f"{_CHAT}::test_logprobs_stream", "wants a first chunk with a role alone; ours goes with the first text"),
    Exempt(f"{_CHAT}::test_logit_bias", "takes its token ids from /tokenize, which is llama.cpp's own"),
    Exempt(f"{_CHAT}::test_context_size_exceeded", "wants llama.cpp's own type of error; ours is OpenAI's"),
    Exempt(f"{_CHAT}::test_context_size_exceeded_stream", "wants llama.cpp's own type of error; ours is OpenAI's"),
    Exempt(f"{_CHAT}::test_return_progress[64-2-True]", "`prompt_progress` is llama.cpp's own"),
    Exempt(f"{_CHAT}::test_chat_completions_multiple_choices", "`n` above 1 is refused: one answer is in flight"),
    Exempt(f"{_CHAT}::test_verbose_debug", "`__verbose` is llama.cpp's own"),
    Exempt(f"{_RESPONSES}::test_responses_stream_with_llama_telemetry", "`timings` are llama.cpp's own"),
    *(Exempt(f"{_EMBEDDING}::test_embedding_mixed_input[input{number}-*]", _TOKENS) for number in (2, 3, 5, 6, 7)),
    *(
        Exempt(f"{_EMBEDDING}::test_embedding_mixed_input[input{number}-*]", "objects as input are llama.cpp's own")
        for number in (8, 9, 10)
    ),
    Exempt(f"{_EMBEDDING}::test_embedding_content_text_same_as_string", "objects as input are llama.cpp's own"),
)
LLAMA_CPP_BARS = (
    Bar(_CHAT, direct=25, through=20),
    Bar("unit/test_compat_anthropic.py", direct=25, through=25),
    Bar("unit/test_tool_call.py", direct=6, through=6),
    Bar(_RESPONSES, direct=1, through=0),
    Bar(_EMBEDDING, direct=27, through=18),
)
