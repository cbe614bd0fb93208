"""The architectures of transformers that express the rope family."""

from model.families.rope.gpt_neox import GPTNeoX
from model.families.rope.llama import Llama

ARCHITECTURES = (Llama(), GPTNeoX())
