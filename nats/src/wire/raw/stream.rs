//! The bytes of a connection, plain or over TLS, without waiting: a reader of much asks again and again and waits only
//! when there is none.

use std::io::{self, BufRead, Read, Write};

use bytes::{Buf, BytesMut};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{ClientConnection, pki_types::ServerName},
};

use super::link::READ_BUFFER;

pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// From here on everything is encrypted. Nothing may have been read that was not taken.
    pub(super) async fn secure(self, connector: &TlsConnector, host: &str) -> io::Result<Self> {
        let Self::Plain(tcp) = self else { return Ok(self) };
        let name = ServerName::try_from(host.to_owned()).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        Ok(Self::Tls(Box::new(connector.connect(name, tcp).await?)))
    }

    /// What is here; 0: nothing will come any more.
    pub(super) fn try_read(&mut self, input: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.try_read_buf(input),
            Self::Tls(tls) => {
                let (tcp, session) = tls.get_mut();
                try_decrypt(tcp, session, input)
            }
        }
    }

    /// What there was room for.
    pub(super) fn try_write(&mut self, output: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.try_write(output),
            Self::Tls(tls) => {
                let (tcp, session) = tls.get_mut();
                loop {
                    let taken = session.writer().write(output)?;
                    let room = try_send(tcp, session)?;
                    if taken > 0 || output.is_empty() {
                        return Ok(taken);
                    }
                    if !room {
                        return Err(io::ErrorKind::WouldBlock.into());
                    }
                }
            }
        }
    }

    /// Sends what is encrypted and not yet sent; also the answers to what TLS itself was asked.
    pub(super) fn try_flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(tls) => {
                let (tcp, session) = tls.get_mut();
                try_send(tcp, session).map(drop)
            }
        }
    }

    /// There is something to flush.
    pub(super) fn unsent(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => tls.get_ref().1.wants_write(),
        }
    }

    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }

    pub(super) async fn readable(&self) -> io::Result<()> {
        self.tcp().readable().await
    }

    pub(super) async fn writable(&self) -> io::Result<()> {
        self.tcp().writable().await
    }

    /// Waits for some. Cancel-safe.
    pub(crate) async fn read(&mut self, input: &mut BytesMut) -> io::Result<usize> {
        loop {
            match self.try_read(input) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.readable().await?,
                done => return done,
            }
        }
    }

    /// Waits until all of it is sent.
    pub(crate) async fn write_all(&mut self, mut output: &[u8]) -> io::Result<()> {
        while !output.is_empty() || self.unsent() {
            let done = if output.is_empty() { self.try_flush().map(|()| 0) } else { self.try_write(output) };
            match done {
                Ok(n) => output.advance(n),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
            if !output.is_empty() || self.unsent() {
                self.writable().await?;
            }
        }
        Ok(())
    }
}

/// Up to a read buffer of plain text, or less if there is no more now.
fn try_decrypt(tcp: &TcpStream, session: &mut ClientConnection, input: &mut BytesMut) -> io::Result<usize> {
    let before = input.len();
    let mut end = false;
    loop {
        loop {
            let mut plain = session.reader();
            match plain.fill_buf() {
                // Closed by the other side, in good order.
                Ok([]) => {
                    end = true;
                    break;
                }
                Ok(text) => {
                    let n = text.len();
                    input.extend_from_slice(text);
                    plain.consume(n);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        let read = input.len() - before;
        if end || read >= READ_BUFFER {
            return Ok(read);
        }
        match session.read_tls(&mut Now(tcp)) {
            Ok(0) => end = true,
            Ok(_) => {
                session.process_new_packets().map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && read > 0 => return Ok(read),
            Err(e) => return Err(e),
        }
    }
}

/// False: the socket takes no more now.
fn try_send(tcp: &TcpStream, session: &mut ClientConnection) -> io::Result<bool> {
    while session.wants_write() {
        match session.write_tls(&mut Now(tcp)) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(e) => return Err(e),
        }
    }
    Ok(true)
}

/// A socket as TLS reads and writes it.
struct Now<'a>(&'a TcpStream);

impl Read for Now<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buf)
    }
}

impl Write for Now<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.try_write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
