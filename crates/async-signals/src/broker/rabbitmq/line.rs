//! The line under lapin: a socket with our own TLS, and a cord to cut it by.
//!
//! lapin drives each connection on a thread of its own, which ends only when
//! the peer answers or closes. A broker that accepts and then says nothing
//! would cost a thread and a socket for every attempt. So whoever holds the
//! [`Cord`] ends the line, and with it lapin's thread, by dropping it.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use async_rs::{
    Runtime, Tokio,
    traits::Reactor,
    util::{DummyIO, RuntimeParts},
};
use futures_util::{Stream, task::AtomicWaker};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties, uri::AMQPUri};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use super::{
    super::{BrokerError, BrokerUrl, Tls},
    depth::Depth,
};

/// What a line runs over: TCP, or TLS over TCP.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// A socket that reads as closed once its cord is cut.
pub(super) struct Line {
    wire: Box<dyn Wire>,
    cut: Arc<Cut>,
    depth: Depth,
}

/// Cuts its line when dropped.
#[derive(Debug)]
pub(super) struct Cord(Arc<Cut>);

#[derive(Debug, Default)]
struct Cut {
    done: AtomicBool,
    reader: AtomicWaker,
}

impl Line {
    /// Connects, encrypted if the URL or `tls` asks for it.
    pub(super) async fn connect(url: &BrokerUrl, tls: Option<&Tls>) -> Result<(Self, Cord), BrokerError> {
        let unreachable = |error: io::Error| BrokerError::Connect { url: url.to_string(), reason: error.to_string() };
        let tcp = TcpStream::connect((url.host(), url.port())).await.map_err(unreachable)?;
        tcp.set_nodelay(true).map_err(unreachable)?;
        // kombu encrypts whenever broker_use_ssl is set, whatever the URL's scheme.
        let wire = if url.is_tls() || tls.is_some() { encrypt(tcp, url, tls).await? } else { Box::new(tcp) };
        let cut = Arc::<Cut>::default();
        Ok((Self { wire, cut: cut.clone(), depth: Depth::default() }, Cord(cut)))
    }

    /// Speaks AMQP over this line, on the current tokio runtime.
    pub(super) async fn open(self, uri: AMQPUri, properties: ConnectionProperties) -> lapin::Result<Connection> {
        let tokio = Tokio::current();
        let runtime = Runtime::new(RuntimeParts::new(tokio.clone(), Sockets(tokio)));
        let line = Mutex::new(Some(self.compat()));
        let take = async move |_uri, _runtime| {
            let line = line.lock().unwrap_or_else(PoisonError::into_inner).take();
            // lapin asks again only where it reconnects by itself, which is off.
            line.map(AsyncTcpStream::Plain).ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected).into())
        };
        Connection::connector(uri, runtime, take, properties).await
    }
}

#[cfg(feature = "rustls")]
async fn encrypt(tcp: TcpStream, url: &BrokerUrl, tls: Option<&Tls>) -> Result<Box<dyn Wire>, BrokerError> {
    use super::super::tls::client_config;

    let distrust = |reason: String| BrokerError::Tls { url: url.to_string(), reason };
    let config = match tls {
        Some(tls) => client_config(tls)?,
        None => client_config(&Tls::default())?,
    };
    let name = rustls_pki_types::ServerName::try_from(url.host().to_owned())
        .map_err(|_| distrust(format!("{:?} is no host name that a certificate could bear", url.host())))?;
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await;
    Ok(Box::new(stream.map_err(|error| match error.kind() {
        // The peer hung up in the middle of the handshake, as a port without TLS does.
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
            distrust("it closed the connection during the TLS handshake".to_owned())
        }
        _ => distrust(error.to_string()),
    })?))
}

#[cfg(not(feature = "rustls"))]
async fn encrypt(_tcp: TcpStream, url: &BrokerUrl, _tls: Option<&Tls>) -> Result<Box<dyn Wire>, BrokerError> {
    Err(BrokerError::Unsupported { scheme: format!("{} with TLS", url.scheme_name()) })
}

impl Drop for Cord {
    fn drop(&mut self) {
        self.0.done.store(true, Ordering::Release);
        self.0.reader.wake();
    }
}

impl Cut {
    /// Whether the line is cut. If not, the task is woken when it is.
    fn poll(&self, context: &Context<'_>) -> bool {
        self.reader.register(context.waker());
        self.done.load(Ordering::Acquire)
    }
}

impl AsyncRead for Line {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.cut.poll(context) {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.wire).poll_read(context, buffer);
        this.depth.bound(&mut buffer.filled_mut()[before..]);
        read
    }
}

impl AsyncWrite for Line {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.cut.done.load(Ordering::Acquire) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut this.wire).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().wire).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().wire).poll_shutdown(context)
    }
}

/// tokio's reactor, with [`Line`] for its sockets: the way to give lapin a
/// stream of one's own.
#[derive(Clone, Debug)]
struct Sockets(Tokio);

impl Reactor for Sockets {
    type TcpStream = Compat<Line>;
    type Sleep = tokio::time::Sleep;

    #[expect(refining_impl_trait, reason = "nothing is ever registered")]
    fn register<H: io::Read + io::Write + Send + 'static>(&self, _socket: H) -> io::Result<DummyIO> {
        // lapin registers nothing: it only speaks over the stream that it is given.
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    fn tcp_connect_addr(
        &self,
        _address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        // The line is connected before lapin hears of it.
        std::future::ready(Err(io::ErrorKind::Unsupported.into()))
    }
}
