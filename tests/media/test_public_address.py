import pytest

from hotshot_jax.media.reading.public_address import is_public

# From the special-purpose registries of IANA; the second half from what tunnels and gateways turn
# such addresses into.
PRIVATE = """
0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 127.0.0.1 127.255.0.1 169.254.169.254 172.16.0.1 172.31.255.255
192.0.0.8 192.0.0.170 192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1 198.19.255.255 198.51.100.1
203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
:: ::1 ::2 100::1 100:0:0:1::1 fe80::1 fe80::1%eth0 fc00::1 fd12::1 fec0::1 fec0:ffff::1 ff02::1
2001:2::1 2001:10::1 2001:20::1 2001:30::1 2001:db8::1 3fff::1 3fff:fff::1 3ffe::1 5f00::1 4000::1
64:ff9b:1::1 64:ff9b:1::8.8.8.8 64:ff9b:0:1::8.8.8.8 f000::1
::127.0.0.1 ::8.8.8.8 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:192.0.0.8 ::ffff:0:127.0.0.1
::ffff:0:8.8.8.8 64:ff9b::127.0.0.1 64:ff9b::10.0.0.1 64:ff9b::169.254.169.254
2002:7f00:1::1 2002:a00:1::1 2002:c0a8:101::1 2001:0:0808:0808::f5ff:fffe 2001:0:a00:1::f7f7:f7f7
2001:0:0808:0808:0:0:80ff:fffe 2600::5efe:10.0.0.1 2600::200:5efe:127.0.0.1
""".split()

PUBLIC = """
1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1
169.253.255.255 172.15.255.255 172.32.0.0 192.0.1.1 192.167.255.255 192.169.0.0 198.17.255.255
198.20.0.0 223.255.255.255 2001:4860:4860::8888 2606:4700:4700::1111 2a00::1 2001:200::1 3ffd::1
::ffff:8.8.8.8 64:ff9b::8.8.8.8 2002:808:808::1 2001:0:0808:0808::f7f7:f7f7 2600::5efe:8.8.8.8
""".split()


@pytest.mark.parametrize("address", PRIVATE)
def test_special_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_others_are(address: str) -> None:
    assert is_public(address)
