//! The two things that a new network namespace must be told, as messages of rtnetlink: that its loopback device is
//! up, and which addresses lead nowhere.
//!
//! One message of each kind is all that is ever sent; the formats are those of `rtnetlink(7)`.

use std::net::IpAddr;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

use super::{Result, failed};

const NEW_LINK: u16 = 16;
const NEW_ROUTE: u16 = 24;
const ERROR: u16 = 2;
/// A request with an answer.
const REQUEST: u16 = 0x1 | 0x4;
/// The same, for what may be there or not.
const PUT: u16 = REQUEST | 0x100 | 0x400;
const HEADER_BYTES: usize = 16;
/// The index that the kernel gives the loopback device of every network namespace.
const LOOPBACK: i32 = 1;
const INTERFACE_UP: u32 = 1;
const TABLE_MAIN: u8 = 254;
const PROTOCOL_STATIC: u8 = 4;
const TYPE_UNREACHABLE: u8 = 7;
const DESTINATION: u16 = 1;
const FAMILY_INET: u8 = 2;
const FAMILY_INET6: u8 = 10;

/// Addresses with a common beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    /// Their first one.
    pub(super) address: IpAddr,
    /// Bits of the common beginning.
    pub(super) bits: u8,
}

impl Range {
    /// One address alone.
    pub(super) fn of(address: IpAddr) -> Self {
        Self { address, bits: if address.is_ipv4() { 32 } else { 128 } }
    }
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER_BYTES + body.len()).unwrap_or_default();
    let mut message = Vec::with_capacity(HEADER_BYTES + body.len());
    message.extend_from_slice(&length.to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&flags.to_ne_bytes());
    // The number of the message and of the sender; the kernel fills in the latter.
    message.extend_from_slice(&1u32.to_ne_bytes());
    message.extend_from_slice(&0u32.to_ne_bytes());
    message.extend_from_slice(body);
    message
}

fn loopback_message() -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend_from_slice(&LOOPBACK.to_ne_bytes());
    body.extend_from_slice(&INTERFACE_UP.to_ne_bytes());
    body.extend_from_slice(&INTERFACE_UP.to_ne_bytes());
    message(NEW_LINK, REQUEST, &body)
}

fn unreachable_message(range: Range) -> Vec<u8> {
    let (family, octets) = match range.address {
        IpAddr::V4(address) => (FAMILY_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (FAMILY_INET6, address.octets().to_vec()),
    };
    let mut body =
        vec![family, range.bits, 0, 0, TABLE_MAIN, PROTOCOL_STATIC, 0, TYPE_UNREACHABLE, 0, 0, 0, 0];
    let length = u16::try_from(4 + octets.len()).unwrap_or_default();
    body.extend_from_slice(&length.to_ne_bytes());
    body.extend_from_slice(&DESTINATION.to_ne_bytes());
    body.extend_from_slice(&octets);
    message(NEW_ROUTE, PUT, &body)
}

/// The kernel's answer: 0 or the number of an error.
fn verdict(answer: &[u8]) -> i32 {
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let code = answer.get(HEADER_BYTES..HEADER_BYTES + 4).and_then(|bytes| bytes.try_into().ok());
    match (kind, code.map(i32::from_ne_bytes)) {
        (Some(ERROR), Some(code)) => -code,
        _ => rustix::io::Errno::PROTO.raw_os_error(),
    }
}

/// Sends one message; the protocol is the family's first, routes, which is the default.
fn ask(message: &[u8]) -> std::io::Result<()> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    send(&socket, message, SendFlags::empty())?;
    let mut answer = [0; 4_096];
    let (count, _) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
    match verdict(&answer[..count]) {
        0 => Ok(()),
        code => Err(std::io::Error::from_raw_os_error(code)),
    }
}

/// Starts the loopback device of the calling thread's network namespace.
pub(super) fn start_loopback() -> Result<()> {
    ask(&loopback_message()).map_err(failed("start the loopback device"))
}

/// Makes addresses unreachable in the calling thread's network namespace.
pub(super) fn forbid(range: Range) -> Result<()> {
    ask(&unreachable_message(range))
        .map_err(failed(format!("make {}/{} unreachable", range.address, range.bits)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_sizes_and_places_of_the_manual() {
        let up = loopback_message();
        assert_eq!(up.len(), 32);
        assert_eq!(up[..4], 32u32.to_ne_bytes());
        assert_eq!(up[20..24], 1i32.to_ne_bytes());
        let four = unreachable_message(Range { address: "169.254.0.0".parse().unwrap(), bits: 16 });
        assert_eq!(four.len(), 36);
        assert_eq!(four[16..28], [2, 16, 0, 0, 254, 4, 0, 7, 0, 0, 0, 0]);
        assert_eq!(four[32..], [169, 254, 0, 0]);
        let six = unreachable_message(Range::of("fd00::2".parse().unwrap()));
        assert_eq!((six.len(), six[17]), (48, 128));
    }

    #[test]
    fn an_answer_is_its_code_and_nonsense_is_an_error() {
        let mut answer = message(ERROR, 0, &(-17i32).to_ne_bytes());
        assert_eq!(verdict(&answer), 17);
        answer[16..20].copy_from_slice(&0i32.to_ne_bytes());
        assert_eq!(verdict(&answer), 0);
        assert_ne!(verdict(&answer[..10]), 0);
        assert_ne!(verdict(&message(NEW_ROUTE, 0, &[0; 4])), 0);
    }
}
