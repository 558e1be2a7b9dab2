//! The running proxy from outside: the real binary, real sockets, origins and clients that send and receive raw bytes.
#![cfg(test)]

mod certificates;
mod guests;
#[path = "../http1_corpus/mod.rs"]
#[allow(dead_code, reason = "the codec's own tests use the rest")]
mod http1_corpus;
mod support;

mod abuse;
mod access;
mod authz;
mod bodies;
mod bypass;
mod check;
mod controlled;
mod differential;
mod filters;
mod grpc_web;
mod http1;
mod http2;
mod in_envoy;
mod lifecycle;
mod load;
mod malformed;
mod netfilter;
mod per_route;
mod restart;
mod router;
mod routes;
mod soak;
mod standard_filters;
mod tcp;
mod telemetry;
mod tls;
mod upgrade;
