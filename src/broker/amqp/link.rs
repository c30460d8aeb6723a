//! One connection with one channel, from the handshake to the end of its thread. Disposable: whatever goes wrong on it,
//! it is ended and another is made.
//!
//! Takes the settings; gives a channel in confirm mode, on which the topology stands. Every wait is under a time-out.

use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lapin::options::ConfirmSelectOptions;
use lapin::tcp::AsyncTcpStream;
use lapin::{Channel, Connection, ConnectionProperties, ErrorKind};

use super::Settings;
use super::address::{Address, External};
use super::tls;

/// The longest cause that is kept, in bytes.
const CAUSE_BYTES_MAX: usize = 300;

/// A connection and its publishing channel.
pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) channel: Channel,
    socket: Socket,
    timeout: Duration,
}

/// Another handle on the connection's socket: lapin's thread waits for the socket for ever where the peer is silent, and
/// this is the one way to end it.
#[derive(Clone, Default)]
struct Socket(Arc<Mutex<Option<TcpStream>>>);

impl Link {
    /// Connects, puts the channel in confirm mode, and establishes the topology.
    pub(super) async fn open(settings: &Settings) -> Result<Self, String> {
        let link = Self::connect(settings).await?;
        match link.prepare(settings).await {
            Ok(()) => Ok(link),
            Err(cause) => {
                link.end().await;
                Err(cause)
            }
        }
    }

    async fn connect(settings: &Settings) -> Result<Self, String> {
        let (address, connector) = {
            let (address, tls) = (settings.address.clone(), settings.tls.clone());
            tokio::task::spawn_blocking(move || {
                let address = Address::read(&address)?;
                let connector = if address.tls() { Some(tls::connector(&tls)?) } else { None };
                Ok::<_, String>((address, connector))
            })
            .await
            .map_err(|error| error.to_string())??
        };
        let mut properties = ConnectionProperties::default().with_connection_name("sluice".into());
        if settings.tls.client.is_some() {
            properties = properties.with_auth_provider(External);
        }
        let (socket, timeout) = (Socket::default(), settings.timeout);
        let runtime = lapin::runtime::default_runtime().map_err(|error| cause(&error))?;
        let uri = address.uri(u16::try_from(settings.heartbeat.as_secs()).unwrap_or(u16::MAX));
        let (kept, to) = (socket.clone(), address.clone());
        let connecting = Connection::connector(
            uri,
            runtime,
            async move |_, runtime| {
                let dial = async {
                    let at = runtime.to_socket_addrs((to.host().to_owned(), to.port()));
                    let stream = AsyncTcpStream::connect(&runtime, at).await?;
                    if let AsyncTcpStream::Plain(tcp) = &stream {
                        kept.keep(TcpStream::from(tcp.get_ref().as_fd().try_clone_to_owned()?));
                    }
                    match &connector {
                        None => Ok(stream),
                        Some(connector) => stream.into_rustls(connector, to.host()).await,
                    }
                };
                let late = || std::io::Error::from(std::io::ErrorKind::TimedOut);
                Ok(tokio::time::timeout(timeout, dial).await.unwrap_or_else(|_| Err(late()))?)
            },
            properties,
        );
        // Also where this future is dropped half-way.
        let shut = ShutOnDrop(Some(socket.clone()));
        let connection = within(2 * timeout, &format!("connecting to {address}"), connecting).await?;
        let channel = within(timeout, "opening a channel", connection.create_channel()).await?;
        shut.keep();
        Ok(Self { connection, channel, socket, timeout })
    }

    async fn prepare(&self, settings: &Settings) -> Result<(), String> {
        settings.names.establish(&self.channel, self.timeout).await?;
        within(self.timeout, "confirm mode", self.channel.confirm_select(ConfirmSelectOptions::default())).await
    }

    /// Closes channel and connection, and waits for the end of the connection's thread: it needs the runtime, so it must
    /// be gone before the runtime is.
    pub(super) async fn end(self) {
        let Self { connection, channel, socket, timeout } = self;
        // Each is refused at once where the broker has gone already.
        let _ = within(timeout, "closing the channel", channel.close(200, "OK".into())).await;
        let _ = within(timeout, "closing the connection", connection.close(200, "OK".into())).await;
        drop(channel);
        socket.shut();
        let ended = tokio::task::spawn_blocking(move || connection.run());
        if tokio::time::timeout(timeout, ended).await.is_err() {
            tracing::warn!("the thread of a broker connection has not ended in time");
        }
    }
}

impl Socket {
    fn keep(&self, stream: TcpStream) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
    }

    fn shut(&self) {
        if let Some(stream) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // Fails only where it is shut already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Shuts the socket unless it is told that all went well.
struct ShutOnDrop(Option<Socket>);

impl ShutOnDrop {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for ShutOnDrop {
    fn drop(&mut self) {
        if let Some(socket) = &self.0 {
            socket.shut();
        }
    }
}

/// Waits for an answer of the broker; an error says what was asked and what came.
pub(super) async fn within<T>(
    timeout: Duration,
    what: &str,
    answer: impl Future<Output = lapin::Result<T>>,
) -> Result<T, String> {
    match tokio::time::timeout(timeout, answer).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(format!("{what}: {}", cause(&error))),
        Err(_) => Err(format!("{what}: no answer within {timeout:?}")),
    }
}

/// An error in words: with the reply code where the broker gave one. Holds names of exchanges, queues and users at most.
pub(super) fn cause(error: &lapin::Error) -> String {
    let mut text = match error.kind() {
        ErrorKind::ProtocolError(error) => format!("{} {}", error.get_id(), error.get_message()),
        ErrorKind::IOError(error) => error.to_string(),
        _ => error.to_string(),
    };
    if text.len() > CAUSE_BYTES_MAX {
        text.truncate(text.floor_char_boundary(CAUSE_BYTES_MAX));
    }
    text
}
