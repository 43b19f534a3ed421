//! The tower layer and service around a server.

use std::convert::Infallible;
use std::fmt;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Either;
use sundew_engineio::{Answer, Body, ServiceFuture};
use tower_layer::Layer;
use tower_service::Service;

use crate::SocketIo;
use crate::client;

/// Puts a [`SocketIo`] before a service: see [`SocketIo::layer`].
#[derive(Debug, Clone)]
pub struct SocketIoLayer(SocketIo);

impl SocketIoLayer {
    pub(crate) fn new(io: SocketIo) -> SocketIoLayer {
        SocketIoLayer(io)
    }
}

impl<S> Layer<S> for SocketIoLayer {
    type Service = SocketIoService<S>;

    fn layer(&self, inner: S) -> SocketIoService<S> {
        SocketIoService { io: Arc::new(self.0.clone()), inner }
    }
}

/// A [`SocketIo`] before a service.
#[derive(Clone)]
pub struct SocketIoService<S> {
    /// Cloned for every connection.
    io: Arc<SocketIo>,
    inner: S,
}

impl<S> fmt::Debug for SocketIoService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketIoService").field("io", &self.io).finish_non_exhaustive()
    }
}

impl<S, B, R> Service<Request<B>> for SocketIoService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    R: http_body::Body<Data = Bytes>,
{
    type Response = Response<Either<Body, R>>;
    type Error = S::Error;
    type Future = ServiceFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let engine = self.io.engine();
        if !engine.path_matches(request.uri().path()) {
            return ServiceFuture::inner(self.inner.call(request));
        }
        ServiceFuture::ours(match client::wanted(&self.io, &request) {
            Some(file) => Answer::later(async move { file.serve().await }),
            None => engine.handle(request),
        })
    }
}

/// Answers everything with 404: what is inside [`SocketIo::into_service`].
#[derive(Debug, Clone, Copy)]
pub struct NotFound;

impl<B> Service<Request<B>> for NotFound {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_FOUND;
        ready(Ok(response))
    }
}
