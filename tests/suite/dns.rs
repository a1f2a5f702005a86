//! A name server on loopback, whose zone tests change while servers ask it.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket as StdUdpSocket};
use std::sync::{Mutex, OnceLock};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, TXT};
use hickory_proto::rr::{RData, Record, RecordType};
use tokio::net::UdpSocket;

use crate::harness::runtime;

/// What the name server says about a name.
#[derive(Debug, Clone)]
pub(crate) enum Says {
    /// These texts, a TXT record each.
    Texts(Vec<String>),
    /// This address.
    Address(Ipv4Addr),
    /// That it failed.
    Failure,
    /// Nothing at all.
    Silence,
}

/// The name server that all test servers ask. What is not in its zone does not exist.
pub(crate) struct NameServer {
    pub(crate) address: SocketAddr,
    zone: Mutex<HashMap<String, Says>>,
    asked: Mutex<HashSet<String>>,
}

/// The name server, started when it is first asked for.
pub(crate) fn name_server() -> &'static NameServer {
    static SERVER: OnceLock<NameServer> = OnceLock::new();
    static SOCKET: OnceLock<StdUdpSocket> = OnceLock::new();
    SERVER.get_or_init(|| {
        let socket = SOCKET.get_or_init(|| StdUdpSocket::bind("127.0.0.1:0").expect("a port"));
        socket.set_nonblocking(true).expect("a socket");
        let serving = socket.try_clone().expect("a socket");
        runtime().spawn(async move { serve(&UdpSocket::from_std(serving).expect("a socket")).await });
        NameServer {
            address: socket.local_addr().expect("an address"),
            zone: Mutex::default(),
            asked: Mutex::default(),
        }
    })
}

impl NameServer {
    /// Sets what is said about a name.
    pub(crate) fn set(&self, name: &str, says: Says) {
        self.zone.lock().unwrap().insert(name.to_ascii_lowercase(), says);
    }

    /// Publishes TXT records at a name, in the place of those that were there.
    pub(crate) fn publish(&self, name: &str, texts: &[&str]) {
        self.set(name, Says::Texts(texts.iter().map(|&text| text.to_owned()).collect()));
    }

    /// Lets a name stand for an address.
    pub(crate) fn point(&self, name: &str, address: Ipv4Addr) {
        self.set(name, Says::Address(address));
    }

    /// Whether anybody has asked about a name.
    pub(crate) fn was_asked(&self, name: &str) -> bool {
        self.asked.lock().unwrap().contains(name)
    }

    /// Makes a name unknown.
    pub(crate) fn remove(&self, name: &str) {
        self.zone.lock().unwrap().remove(name);
    }
}

async fn serve(socket: &UdpSocket) {
    let mut buffer = [0; 4096];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else { continue };
        let Some(answer) = Message::from_vec(&buffer[..length]).ok().and_then(|question| answer(&question)) else {
            continue;
        };
        let _ = socket.send_to(&answer.to_vec().expect("an answer"), peer).await;
    }
}

fn answer(question: &Message) -> Option<Message> {
    let query = question.queries.first()?;
    let name = query.name().to_ascii().to_ascii_lowercase();
    let name = name.trim_end_matches('.');
    let says = name_server().zone.lock().unwrap().get(name).cloned();
    name_server().asked.lock().unwrap().insert(name.to_owned());
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.metadata.recursion_available = true;
    answer.add_query(query.clone());
    match says {
        None => answer.metadata.response_code = ResponseCode::NXDomain,
        Some(Says::Failure) => answer.metadata.response_code = ResponseCode::ServFail,
        Some(Says::Silence) => return None,
        Some(Says::Texts(texts)) if query.query_type() == RecordType::TXT => {
            for text in texts {
                // A string within a record has at most 255 bytes; longer texts are several.
                let parts = text.as_bytes().chunks(100).collect();
                let record = RData::TXT(TXT::from_bytes(parts));
                answer.add_answer(Record::from_rdata(query.name().clone(), 3600, record));
            }
        }
        Some(Says::Address(address)) if query.query_type() == RecordType::A => {
            answer.add_answer(Record::from_rdata(query.name().clone(), 3600, RData::A(A(address))));
        }
        Some(Says::Texts(_) | Says::Address(_)) => {}
    }
    Some(answer)
}
