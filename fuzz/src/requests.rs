//! Requests of every protocol, as bytes on a channel.

use ipc::Server as _;
use sys::{Channel, HandleList};

use crate::input::Input;

/// Most messages of one input.
const MESSAGES_MAX: usize = 16;

/// Sends the messages to a fresh server of the protocol, takes what it understands, and drops that.
macro_rules! serve {
    ($input:expr, $server:path) => {{
        type Server = $server;
        let Ok((client, server)) = Server::pair() else {
            return;
        };
        let channel: &Channel = client.channel();
        for message in messages($input, Server::PROTOCOL, Server::VERSION) {
            if channel.write(&message, &mut HandleList::new()).is_err() {
                break;
            }
        }
        for _ in 0..MESSAGES_MAX {
            match server.try_next() {
                Ok(Some(request)) => drop(request),
                Ok(None) | Err(_) => break,
            }
        }
    }};
}

/// Messages with a right header but for the number of the method, or of raw bytes.
fn messages(input: &mut Input, protocol: u32, version: u16) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while !input.is_over() && messages.len() < MESSAGES_MAX {
        let choice = input.byte();
        let mut message = Vec::new();
        if choice != 0xff {
            message.extend(protocol.to_le_bytes());
            message.extend(version.to_le_bytes());
            message.extend(u16::from(choice & 0x1f).to_le_bytes());
            message.extend(u32::from(choice >> 5).to_le_bytes());
        }
        let len = usize::from(input.byte());
        message.extend(input.take(len));
        messages.push(message);
    }
    messages
}

/// A server of the protocol that the first byte chooses.
pub fn ipc(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let input = &mut input;
    match input.byte() % 18 {
        0 => serve!(input, proto::block::BlockEndpointServer),
        1 => serve!(input, proto::block::BlockSessionServer),
        2 => serve!(input, proto::bus::PciBusServer),
        3 => serve!(input, proto::bus::PciDeviceServer),
        4 => serve!(input, proto::bus::FirmwareServer),
        5 => serve!(input, proto::console::ConsoleServer),
        6 => serve!(input, proto::devmgr::DeviceTreeServer),
        7 => serve!(input, proto::devmgr::EndpointsServer),
        8 => serve!(input, proto::devmgr::PartitionsServer),
        9 => serve!(input, proto::devmgr::DriverHostServer),
        10 => serve!(input, proto::fs::FilesServer),
        11 => serve!(input, proto::fs::FileServer),
        12 => serve!(input, proto::fs::VolumeServer),
        13 => serve!(input, proto::proc::ProcessesServer),
        14 => serve!(input, proto::serial::SerialEndpointServer),
        15 => serve!(input, proto::net::NetEndpointServer),
        16 => serve!(input, proto::net::NetSessionServer),
        _ => serve!(input, proto::startup::BootstrapServer),
    }
}
