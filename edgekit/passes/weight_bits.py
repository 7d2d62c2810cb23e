"""How many bits int8 weights have, and the note that tells the user."""

from __future__ import annotations

from edgekit.passes import Work
from edgekit.profile import weight_bits
from edgekit.recipe import IntegerBits, QuantizeDynamic, QuantizeStatic, QuantizeWeights

_NOTES: dict[IntegerBits, str] = {
    7: "weights have 7 bits, which saturate on no processor",
    8: "weights have 8 bits, for Arm and for x86 with VNNI; on other x86 processors sums of "
    "their products saturate (weight_bits=7)",
}


def used_bits(settings: QuantizeStatic | QuantizeDynamic | QuantizeWeights) -> IntegerBits:
    """The bits that were asked for; where they are left open, those that this machine takes."""
    return weight_bits(None) if settings.weight_bits == "auto" else settings.weight_bits


def told_bits(settings: QuantizeStatic | QuantizeDynamic, work: Work) -> IntegerBits:
    """The same, and a note of it to the user."""
    bits = used_bits(settings)
    work.note(_NOTES[bits])
    return bits
