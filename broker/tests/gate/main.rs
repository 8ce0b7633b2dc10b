//! The gate and the hub from outside: real sockets, `mosquitto_pub` and `mosquitto_sub` as foreign clients.

#![allow(clippy::unwrap_used)] // the harness is test code, which clippy does not see

mod acks;
mod connect;
mod downlink;
mod fanout;
mod faults;
mod harness;
mod hostile;
mod limits;
mod pki;
mod rates;
mod sessions;
mod tls;
mod version5;
mod websocket;
