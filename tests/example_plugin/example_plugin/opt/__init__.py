"""A model family: OPT, a decoder with learned positions, LayerNorm before each half and ReLU.

Source: OPT, arXiv:2205.01068; parameter names are those of transformers' `OPTForCausalLM` without their prefix.
"""
