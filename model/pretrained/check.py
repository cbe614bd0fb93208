"""The proof that a published folder, loaded by transformers, is the model it was made from."""

import contextlib
import copy
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers.dynamic_module_utils
from safetensors import SafetensorError
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, logging

from model.export.architecture import Architecture
from model.generation.generate import generate
from model.layers.language_model import LanguageModel
from model.pretrained.architectures import architecture_for
from model.pretrained.folder import suppressed_ids
from storage.errors import Fault

CHECKED_TOKENS = 64
"""How many tokens both implementations generate greedily in the check."""


@dataclass(frozen=True)
class FolderCheck:
    """What was found equal between a folder, loaded by transformers, and the model it was made from."""

    parameters: int
    logit_difference: float
    """Largest difference of two logits."""
    logit_tolerance: float
    """What it was allowed to be."""
    texts: int
    """Texts that both tokenizers encode alike."""
    generated_tokens: int
    """Tokens that both generate greedily from the same prompt."""


def check_folder(
    folder: Path, model: LanguageModel, tokenizer: Tokenizer, texts: Sequence[str], eot_id: int, used_vocab: int
) -> FolderCheck:
    """Load a folder with transformers, from disk only, and compare it with the model and tokenizer on the CPU.

    Code in the folder is run only if it is the code that the model's architecture brings.

    Raises: Fault that says what differs.
    """
    with fresh_modules():
        theirs, loaded_tokenizer = _load(folder, architecture_for(model.config))
        _check_weights(folder, model, theirs)
        _check_texts(folder, tokenizer, loaded_tokenizer, texts)
        ids = _fixed_batch(model, used_vocab)
        difference, allowed = _check_logits(folder, model, theirs, ids)
        suppressed = suppressed_ids(tokenizer, used_vocab, model.config.vocab_size)
        generated_tokens = _check_greedy(folder, model, theirs, ids, eot_id, suppressed, allowed)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return FolderCheck(parameters, difference, allowed, len(texts), generated_tokens)


def logit_tolerance(model: LanguageModel, ids: Tensor, logits_BTV: Tensor, difference: float) -> float:
    """Return how far the logits of two implementations may differ: sums in another order, nothing more.

    2e-5 and 1e-4 of their root mean square. If `difference` is more, four times what float32 itself costs are
    added: the distance of the logits to those that the model computes in float64.
    """
    allowed = 2e-5 + 1e-4 * float(logits_BTV.square().mean().sqrt())
    if difference <= allowed:
        return allowed
    with torch.inference_mode():
        exact_BTV = copy.deepcopy(model).double()(ids)
    return allowed + 4 * float((logits_BTV - exact_BTV).abs().max())


def _check_weights(folder: Path, model: LanguageModel, theirs: Any) -> None:
    """Compare all weights under our names, after the way there and back."""
    architecture, config = architecture_for(model.config), model.config
    wanted = architecture.from_tensors(architecture.to_tensors(model.state_dict(), config), config)
    state = theirs.state_dict()
    if architecture.is_tied(config):
        for head in (architecture.tied[0], "lm_head.weight"):  # on disk, and in the memory of transformers
            state.pop(head, None)
    found = architecture.from_tensors(state, config)
    different = sorted(found.keys() ^ wanted.keys())
    different += [name for name in wanted.keys() & found.keys() if not torch.equal(wanted[name], found[name])]
    if different:
        raise _differs(folder, "weights", ", ".join(different[:5]))


def _check_texts(folder: Path, tokenizer: Tokenizer, loaded: Any, texts: Sequence[str]) -> None:
    for text in texts:
        wanted, found = tokenizer.encode(text).ids, loaded.encode(text)
        if wanted != found:
            raise _differs(folder, f"token ids of {text!r}", f"{found} instead of {wanted}")
        if (decoded := loaded.decode(found)) != text:
            raise _differs(folder, f"decoded text of {text!r}", repr(decoded))


def _check_logits(folder: Path, model: LanguageModel, theirs: Any, ids: Tensor) -> tuple[float, float]:
    """Return the largest difference and what was allowed."""
    with torch.inference_mode(), _running(folder):
        wanted_BTV, found_BTV = model(ids), theirs(input_ids=ids).logits
    difference = float((wanted_BTV - found_BTV).abs().max())
    allowed = logit_tolerance(model, ids, wanted_BTV, difference)
    if not difference <= allowed:
        raise _differs(folder, "logits", f"by {difference:.1e}, allowed {allowed:.1e}")
    return difference, allowed


def _check_greedy(
    folder: Path,
    model: LanguageModel,
    theirs: Any,
    ids: Tensor,
    eot_id: int,
    suppressed: tuple[int, ...],
    allowed: float,
) -> int:
    """Return how many tokens both generate alike: all, or those before a tie that rounding decides."""
    new = min(CHECKED_TOKENS, model.config.max_seq_len - 1)
    prompt = ids[:1, : model.config.max_seq_len - new]
    # Neither may end early, so that all tokens are compared.
    wanted = generate(model, prompt, new, suppress_tokens={*suppressed, eot_id})
    with _running(folder):
        found = theirs.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            min_new_tokens=new,
            max_new_tokens=new,
        )
    unequal = (wanted[0] != found[0]).nonzero().flatten().tolist()
    if not unequal:
        return new
    with torch.inference_mode():
        logits_V = model(wanted[:, : unequal[0]])[0, -1]
    first, second = int(wanted[0, unequal[0]]), int(found[0, unequal[0]])
    if not float((logits_V[first] - logits_V[second]).abs()) <= 2 * allowed:
        raise _differs(folder, "greedy text", f"{found.tolist()} instead of {wanted.tolist()}")
    return unequal[0] - prompt.shape[1]


@contextlib.contextmanager
def _running(folder: Path) -> Iterator[None]:
    """Turn what stops the model of transformers into the Fault that the check promises."""
    try:
        yield
    except RuntimeError as error:
        raise _differs(folder, "computation", f"transformers cannot run them ({error})") from error


def _load(folder: Path, architecture: Architecture[Any]) -> tuple[Any, Any]:
    logging.disable_progress_bar()  # it would draw over our own progress
    code = architecture.code_files()
    if code:
        _check_code(folder, code)
    load_model: Any = AutoModelForCausalLM.from_pretrained
    try:
        model, info = load_model(
            folder,
            local_files_only=True,
            trust_remote_code=bool(code),
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise _differs(folder, "files", f"transformers cannot load them ({error})") from error
    problems = {kind: sorted(map(str, names)) for kind, names in info.items() if names}
    if problems:
        raise _differs(folder, "parameter names", f"transformers reports {problems}")
    if model.generation_config.eos_token_id != tokenizer.eos_token_id:
        raise _differs(folder, "end of text", f"{model.generation_config.eos_token_id} is not the tokenizer's")
    if type(model).__name__ != architecture.name:
        raise _differs(folder, "architecture", f"{type(model).__name__} instead of {architecture.name}")
    return model.eval(), tokenizer


def _check_code(folder: Path, code: Mapping[str, str]) -> None:
    found = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.py")}
    if found != code:
        raise _differs(folder, "code", f"{', '.join(sorted(found))} are not as this release writes them")


@contextlib.contextmanager
def fresh_modules() -> Iterator[None]:
    """Let transformers import a folder's code from a new place, and forget it afterwards.

    It copies code to a cache in the home folder and keeps what it once imported from there.
    """
    dynamic_modules: Any = transformers.dynamic_module_utils
    name = dynamic_modules.TRANSFORMERS_DYNAMIC_MODULE_NAME

    def forget() -> dict[str, Any]:
        return {key: sys.modules.pop(key) for key in list(sys.modules) if key.partition(".")[0] == name}

    before, imported = dynamic_modules.HF_MODULES_CACHE, forget()
    with tempfile.TemporaryDirectory() as cache:
        dynamic_modules.HF_MODULES_CACHE = cache
        try:
            yield
        finally:
            dynamic_modules.HF_MODULES_CACHE = before
            forget()
            sys.modules.update(imported)
            if cache in sys.path:
                sys.path.remove(cache)


def _fixed_batch(model: LanguageModel, used_vocab: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(used_vocab, (2, min(128, model.config.max_seq_len)), generator=generator)


def _differs(folder: Path, what: str, found: str) -> Fault:
    return Fault(
        f"the folder that transformers loads must equal the trained model, but its {what} differ: {found}; "
        f"nothing was published, run again, and report this if it comes back ({folder.name})"
    )
