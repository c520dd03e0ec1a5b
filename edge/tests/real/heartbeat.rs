//! A client whose timers sleep: the kernel and the network stack are all that answers.

use std::time::{Duration, Instant};

use natterjack_protocol::{Times, client::close, codec::Codec};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::kit::{PATIENCE, World, times};

const PING: u8 = 9;
const CLOSE: u8 = 8;

/// The next frame of WebSocket, by hand: opcode and payload.
async fn frame(socket: &mut TcpStream) -> (u8, Vec<u8>) {
    let read = async {
        let (first, length) = (socket.read_u8().await.unwrap(), socket.read_u8().await.unwrap());
        assert!(length < 126);
        let mut payload = vec![0; length.into()];
        socket.read_exact(&mut payload).await.unwrap();
        (first & 0xf, payload)
    };
    timeout(PATIENCE, read).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn pongs_alone_keep_a_socket_and_without_them_it_is_closed() {
    let (ping, allowed) = (Duration::from_millis(800), Duration::from_millis(1_500));
    let world = World::with(&["ua"], Times { edge_ping: ping, heartbeat_timeout: allowed, ..times() }).await;
    // Attached, so nothing more comes by itself.
    let mut client = world.client("ua", "d1", Codec::Json).await;
    let socket = client.ws.get_mut();
    let begun = Instant::now();
    while begun.elapsed() < 3 * allowed {
        assert_eq!(frame(socket).await, (PING, Vec::new()));
        socket.write_all(&[0x8a, 0x80, 0, 0, 0, 0]).await.unwrap();
    }
    let heard = Instant::now();
    assert_eq!(frame(socket).await, (PING, Vec::new()), "still asked");
    let (opcode, payload) = frame(socket).await;
    assert_eq!((opcode, &payload[..2]), (CLOSE, &close::HEARTBEAT.code.to_be_bytes()[..]));
    assert!(heard.elapsed() >= allowed - Duration::from_millis(50), "{:?}", heard.elapsed());
}
