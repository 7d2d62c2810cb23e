"""Ed25519 verification against the vectors of RFC 8032, cryptography, and malformed encodings."""

import os
import time

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from edgekit_agent.trust.ed25519 import is_usable_key, verify

ORDER = 2**252 + 27742317777372353535851937790883648493
P = 2**255 - 19
# The points of order 1, 2, 4 and 8, in their canonical encodings.
SMALL_ORDER = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
]
# RFC 8032, section 7.1: name, secret key, public key, message, signature.
VECTORS = [
    (
        "one",
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e"
        "39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "two",
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f"
        "3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "three",
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67"
        "f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
    (
        "1024",
        "f5e5767cf153319517630f226876b86c8160cc583bc013744c6bf255f5cc0ee5",
        "278117fc144c72340f67d0f2316e8386ceffbf2b2428c9c51fef7c597f1d426e",
        "08b8b2b733424243760fe426a4b54908632110a66c2f6591eabd3345e3e4eb98fa6e264bf09efe12ee50"
        "f8f54e9f77b1e355f6c50544e23fb1433ddf73be84d879de7c0046dc4996d9e773f4bc9efe5738829adb"
        "26c81b37c93a1b270b20329d658675fc6ea534e0810a4432826bf58c941efb65d57a338bbd2e26640f89"
        "ffbc1a858efcb8550ee3a5e1998bd177e93a7363c344fe6b199ee5d02e82d522c4feba15452f80288a82"
        "1a579116ec6dad2b3b310da903401aa62100ab5d1a36553e06203b33890cc9b832f79ef80560ccb9a39c"
        "e767967ed628c6ad573cb116dbefefd75499da96bd68a8a97b928a8bbc103b6621fcde2beca1231d206b"
        "e6cd9ec7aff6f6c94fcd7204ed3455c68c83f4a41da4af2b74ef5c53f1d8ac70bdcb7ed185ce81bd8435"
        "9d44254d95629e9855a94a7c1958d1f8ada5d0532ed8a5aa3fb2d17ba70eb6248e594e1a2297acbbb39d"
        "502f1a8c6eb6f1ce22b3de1a1f40cc24554119a831a9aad6079cad88425de6bde1a9187ebb6092cf67bf"
        "2b13fd65f27088d78b7e883c8759d2c4f5c65adb7553878ad575f9fad878e80a0c9ba63bcbcc2732e694"
        "85bbc9c90bfbd62481d9089beccf80cfe2df16a2cf65bd92dd597b0707e0917af48bbb75fed413d238f5"
        "555a7a569d80c3414a8d0859dc65a46128bab27af87a71314f318c782b23ebfe808b82b0ce26401d2e22"
        "f04d83d1255dc51addd3b75a2b1ae0784504df543af8969be3ea7082ff7fc9888c144da2af58429ec960"
        "31dbcad3dad9af0dcbaaaf268cb8fcffead94f3c7ca495e056a9b47acdb751fb73e666c6c655ade82972"
        "97d07ad1ba5e43f1bca32301651339e22904cc8c42f58c30c04aafdb038dda0847dd988dcda6f3bfd15c"
        "4b4c4525004aa06eeff8ca61783aacec57fb3d1f92b0fe2fd1a85f6724517b65e614ad6808d6f6ee34df"
        "f7310fdc82aebfd904b01e1dc54b2927094b2db68d6f903b68401adebf5a7e08d78ff4ef5d63653a6504"
        "0cf9bfd4aca7984a74d37145986780fc0b16ac451649de6188a7dbdf191f64b5fc5e2ab47b57f7f7276c"
        "d419c17a3ca8e1b939ae49e488acba6b965610b5480109c8b17b80e1b7b750dfc7598d5d5011fd2dcc56"
        "00a32ef5b52a1ecc820e308aa342721aac0943bf6686b64b2579376504ccc493d97e6aed3fb0f9cd71a4"
        "3dd497f01f17c0e2cb3797aa2a2f256656168e6c496afc5fb93246f6b1116398a346f1a641f3b041e989"
        "f7914f90cc2c7fff357876e506b50d334ba77c225bc307ba537152f3f1610e4eafe595f6d9d90d11faa9"
        "33a15ef1369546868a7f3a45a96768d40fd9d03412c091c6315cf4fde7cb68606937380db2eaaa707b4c"
        "4185c32eddcdd306705e4dc1ffc872eeee475a64dfac86aba41c0618983f8741c5ef68d3a101e8a3b8ca"
        "c60c905c15fc910840b94c00a0b9d0",
        "0aab4c900501b3e24d7cdf4663326a3a87df5e4843b2cbdb67cbf6e460fec350aa5371b1508f9f4528ec"
        "ea23c436d94b5e8fcd4f681e30a6ac00a9704a188a03",
    ),
    (
        "sha(abc)",
        "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba"
        "3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfb"
        "c7c66431e0303dca179c138ac17ad9bef1177331a704",
    ),
]


@pytest.mark.parametrize(("name", "secret", "public", "message", "signature"), VECTORS)
def test_the_vectors_of_the_rfc_verify(name, secret, public, message, signature):
    public, message, signature = map(bytes.fromhex, (public, message, signature))
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret))
    assert (key.public_key().public_bytes_raw(), key.sign(message)) == (public, signature)
    assert verify(public, message, signature), name
    assert not verify(public, message + b"\0", signature)
    for at in range(0, 64, 7):
        other = bytearray(signature)
        other[at] ^= 1 << at % 8
        assert not verify(public, message, bytes(other))


def test_it_agrees_with_cryptography_on_signatures_of_all_kinds_of_messages():
    for size in range(60):
        key, message = Ed25519PrivateKey.generate(), os.urandom(size * size)
        public, signature = key.public_key().public_bytes_raw(), key.sign(message)
        assert verify(public, message, signature)
        assert is_usable_key(public)
        other = bytearray(signature)
        other[size] ^= 1 << size % 8
        with pytest.raises(InvalidSignature):
            Ed25519PublicKey.from_public_bytes(public).verify(bytes(other), message)
        assert not verify(public, message, bytes(other))


def test_a_signature_has_only_one_valid_encoding():
    key = Ed25519PrivateKey.generate()
    public, signature = key.public_key().public_bytes_raw(), key.sign(b"text")
    scalar = int.from_bytes(signature[32:], "little") + ORDER
    assert not verify(public, b"text", signature[:32] + scalar.to_bytes(32, "little"))
    assert not verify(public, b"text", signature + b"\0")
    assert not verify(public, b"text", signature[:-1])
    assert not verify(public + b"\0", b"text", signature)
    assert not verify(public[:-1], b"text", signature)


@pytest.mark.parametrize("y", [P, P + 1, 2**255 - 1, P | 1 << 255])
def test_a_key_that_is_not_a_canonical_point_verifies_nothing(y):
    public = y.to_bytes(32, "little")
    assert not is_usable_key(public)
    assert not verify(public, b"text", bytes(64))


def test_a_key_of_small_order_is_not_usable():
    for text in SMALL_ORDER:
        assert not is_usable_key(bytes.fromhex(text)), text
    # Anybody can sign for it: S = 0 and R = A verify where the challenge is a multiple of 8.
    public = bytes.fromhex(SMALL_ORDER[2])
    assert any(verify(public, b"%d" % n, public + bytes(32)) for n in range(64))


def test_half_of_all_numbers_are_not_points():
    found = sum(is_usable_key(n.to_bytes(32, "little")) for n in range(2, 202))
    assert 70 < found < 130
    for n in range(2, 202):
        if not is_usable_key(n.to_bytes(32, "little")):
            assert not verify(n.to_bytes(32, "little"), b"", bytes(64))


def test_a_signature_is_verified_within_a_fraction_of_100_ms():
    key = Ed25519PrivateKey.generate()
    public, signature = key.public_key().public_bytes_raw(), key.sign(bytes(4096))
    times = []
    for _ in range(5):
        start = time.process_time()
        assert verify(public, bytes(4096), signature)
        times.append(time.process_time() - start)
    assert min(times) < 0.02
