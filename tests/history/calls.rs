//! Asking a server, and judging what it says.

use std::time::Duration;

use tenantry::rpc::v1;
use tenantry::rpc::v1::usage_service_client::UsageServiceClient;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_types::StatusExt as _;

use crate::fleet::Fleet;
use crate::record::{Amounts, Attempt, Told, What};

/// What an answer without a decision says: the same again tells what became of it.
const UNDECIDED: [&str; 4] = ["DATABASE_UNAVAILABLE", "DEADLINE_EXCEEDED", "OVERLOADED", "QUOTA_CONTENDED"];

/// How long a caller waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) at_most: Duration,
    /// Whether the server is told.
    pub(crate) is_told: bool,
}

/// Asks a server once.
pub(crate) async fn ask(
    fleet: &Fleet,
    server: usize,
    tenant: &str,
    key: &str,
    what: &What,
    patience: Patience,
) -> Attempt {
    let line = fleet.line(server);
    let client = UsageServiceClient::new(line.channel);
    let sent = fleet.clock.now();
    let answer = tokio::time::timeout(patience.at_most, send(fleet, client, tenant, key, what, patience)).await;
    let told = match answer {
        Ok(Ok(told)) => told,
        Ok(Err(status)) => judge(&status),
        Err(_) => Told::Unknown("no answer in time".to_owned()),
    };
    Attempt { server, life: line.life, sent, received: fleet.clock.now(), told }
}

async fn send(
    fleet: &Fleet,
    mut client: UsageServiceClient<Channel>,
    tenant: &str,
    key: &str,
    what: &What,
    patience: Patience,
) -> Result<Told, Status> {
    let (tenant, idempotency_key) = (tenant.to_owned(), key.to_owned());
    match what {
        What::Consume { amounts, leased, keyed } => {
            let level = if *leased { v1::AckLevel::Leased } else { v1::AckLevel::Durable };
            let asked = v1::ConsumeRequest {
                tenant,
                amounts: list(amounts),
                idempotency_key: if *keyed { idempotency_key } else { String::new() },
                ack_level: level.into(),
                details: Some(v1::UsageDetails { endpoint: key.to_owned(), ..Default::default() }),
                ..Default::default()
            };
            let told = client.consume(by_service(fleet, asked, patience)).await?.into_inner();
            let promised = told.ack_level() == v1::AckLevel::Leased;
            Ok(Told::Yes { promised, text: format!("{:?} {:?}", told.usage, told.shortages), hold: None })
        }
        What::Reserve { amounts, seconds } => {
            let ttl = Some(prost_types::Duration { seconds: *seconds, nanos: 0 });
            let amounts = list(amounts);
            let asked = v1::ReserveRequest { tenant, amounts, ttl, idempotency_key, ..Default::default() };
            let told = client.reserve(by_service(fleet, asked, patience)).await?.into_inner();
            Ok(of_hold(told.reservation, |held| format!("{:?}", held.amounts)))
        }
        What::Commit { hold, amounts, .. } => {
            let asked = v1::CommitReservationRequest { tenant, reservation_id: hold.clone(), amounts: list(amounts) };
            let told = client.commit_reservation(by_service(fleet, asked, patience)).await?.into_inner();
            Ok(of_hold(told.reservation, |held| format!("{:?} {:?}", held.state(), held.committed_amounts)))
        }
        What::Release { hold, .. } => {
            let asked = v1::ReleaseReservationRequest { tenant, reservation_id: hold.clone() };
            let told = client.release_reservation(by_service(fleet, asked, patience)).await?.into_inner();
            Ok(of_hold(told.reservation, |held| format!("{:?}", held.state())))
        }
        What::Refund { of, amounts } => {
            let asked = v1::RefundRequest { tenant, event_key: of.clone(), amounts: list(amounts), idempotency_key };
            let told = client.refund(by_service(fleet, asked, patience)).await?.into_inner();
            Ok(Told::Yes { promised: false, text: format!("{:?}", told.usage), hold: None })
        }
    }
}

fn by_service<T>(fleet: &Fleet, message: T, patience: Patience) -> Request<T> {
    let mut request = fleet.by_service(message);
    if patience.is_told {
        request.set_timeout(patience.at_most);
    }
    request
}

fn list(amounts: &Amounts) -> Vec<v1::Amount> {
    amounts.iter().map(|(metric, amount)| v1::Amount { metric: (*metric).to_owned(), amount: *amount }).collect()
}

fn of_hold(held: Option<v1::Reservation>, text: impl Fn(&v1::Reservation) -> String) -> Told {
    match held {
        Some(held) => Told::Yes {
            promised: false,
            text: format!("{} {}", held.reservation_id, text(&held)),
            hold: Some(held.reservation_id),
        },
        None => Told::Odd("an answer without a reservation".to_owned()),
    }
}

fn judge(status: &Status) -> Told {
    let details = status.get_error_details();
    // What the client's library says by itself carries no reason of ours.
    let Some(info) = details.error_info() else {
        return Told::Unknown(format!("{:?}: {}", status.code(), status.message()));
    };
    match info.reason.as_str() {
        "QUOTA_EXCEEDED" => Told::No(format!("{} {:?}", status.message(), details.quota_failure())),
        reason if UNDECIDED.contains(&reason) => Told::Unknown(reason.to_owned()),
        reason => Told::Odd(format!("{reason}: {}", status.message())),
    }
}
