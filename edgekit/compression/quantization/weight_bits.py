"""Choice of the bits of int8 weights, with a note to the user."""

from __future__ import annotations

from edgekit.compression.pass_specs import Work
from edgekit.config.profile import choose_weight_bits
from edgekit.pass_settings import IntegerBits, QuantizeDynamic, QuantizeStatic, QuantizeWeights

_NOTES: dict[IntegerBits, str] = {
    7: "weights have 7 bits, so that sums do not saturate on any processor",
    8: "weights have 8 bits, for Arm and x86 with VNNI; sums may saturate on other x86 "
    "processors, so use weight_bits=7 there",
}


def choose_bits(settings: QuantizeStatic | QuantizeDynamic | QuantizeWeights) -> IntegerBits:
    """Return the bits of the settings, or with "auto" the bits that suit this machine."""
    return choose_weight_bits(None) if settings.weight_bits == "auto" else settings.weight_bits


def choose_and_note_bits(settings: QuantizeStatic | QuantizeDynamic, work: Work) -> IntegerBits:
    """Choose the bits of int8 weights and note the choice to the user."""
    bits = choose_bits(settings)
    work.note(_NOTES[bits])
    return bits
