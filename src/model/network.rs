//! Addresses, and the networks that they belong to.

use ipnet::IpNet;
use std::net::{IpAddr, Ipv6Addr};

/// The address that stands for a peer: one host has all of an IPv6 /64 to itself, and an
/// IPv4-mapped address is its IPv4 address.
pub(crate) fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

/// Whether the address is in one of the networks. An IPv4 address may come as a mapped one.
pub(crate) fn is_in(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}
