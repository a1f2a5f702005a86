//! What has changed, as pages and as a stream.

use std::sync::Arc;

use chrono::TimeDelta;
use tokio::sync::watch;
use tonic::Request;
use uuid::Uuid;

use crate::app::App;
use crate::app::changes::{ChangeFilter, Changed, Changes, Watch};
use crate::ctx::TenantCtx;
use crate::error::Error;
use crate::rpc::fields::Fields;
use crate::rpc::stream::{Answers, Source, Turns, answer};
use crate::rpc::{Services, v1};

/// What is wrong with a text that is no cursor.
const ODD_CURSOR: &str = "must be one that this method gave";

/// How long a stream is silent, unless said.
const HEARTBEAT: TimeDelta = TimeDelta::seconds(10);
const LEAST_HEARTBEAT: TimeDelta = TimeDelta::seconds(1);
const LONGEST_HEARTBEAT: TimeDelta = TimeDelta::minutes(5);

pub(super) async fn list_changes(
    s: &Services,
    request: Request<v1::ListChangesRequest>,
) -> Result<v1::ListChangesResponse, Error> {
    let (_, t, m) = s.0.enter_any(request).await?;
    let mut f = Fields::default();
    let (Some(filter), Some(after)) = (filter(&mut f, t.as_ref(), &m.kinds), f.cursor("cursor", &m.cursor, ODD_CURSOR))
    else {
        return Err(f.refuse());
    };
    let Changes { changes, cursor, more } = s.0.app.list_changes(&filter, after).await?;
    Ok(v1::ListChangesResponse { changes: changes.iter().map(change).collect(), cursor: cursor.text(), more })
}

pub(super) async fn watch_changes(
    s: &Services,
    request: Request<v1::WatchChangesRequest>,
) -> Result<Answers<v1::WatchChangesResponse>, Error> {
    let turns = Turns::take(s, &request)?;
    let (ctx, t, m) = s.0.enter_any(request).await?;
    let mut f = Fields::default();
    let (filter, after) = (filter(&mut f, t.as_ref(), &m.kinds), f.cursor("cursor", &m.cursor, ODD_CURSOR));
    let heartbeat = match &m.heartbeat_interval {
        None => Some(HEARTBEAT),
        Some(said) => {
            let bounds = (LEAST_HEARTBEAT, LONGEST_HEARTBEAT);
            f.span("heartbeat_interval", said, bounds, "must be 1 second to 5 minutes")
        }
    };
    let (Some(filter), Some(after), Some(heartbeat)) = (filter, after, heartbeat) else { return Err(f.refuse()) };
    let heartbeat = heartbeat.to_std().unwrap_or_default();
    let (app, request_id) = (s.0.app.clone(), ctx.request_id);
    let watch = app.watch_changes((ctx, t), filter, after, heartbeat).await?;
    let stopping = s.0.stopping.clone();
    Ok(answer(turns, request_id, Watching { app, watch, stopping }))
}

struct Watching {
    app: Arc<App>,
    watch: Watch,
    stopping: watch::Receiver<bool>,
}

impl Source for Watching {
    type Message = v1::WatchChangesResponse;

    async fn next(&mut self) -> Result<Option<Vec<Self::Message>>, Error> {
        let found = tokio::select! {
            _ = self.stopping.wait_for(|stops| *stops) => Err(Error::ServerStopping),
            found = self.app.next_changes(&mut self.watch) => found,
        };
        let Changes { changes, cursor, .. } = found?;
        let staleness = self.app.plane.memory.staleness().and_then(|staleness| staleness.try_into().ok());
        let changes = changes.iter().map(change).collect();
        Ok(Some(vec![v1::WatchChangesResponse { changes, cursor: cursor.text(), staleness }]))
    }
}

fn filter(f: &mut Fields, t: Option<&TenantCtx>, kinds: &[i32]) -> Option<ChangeFilter> {
    let known = |(i, kind): (usize, &i32)| {
        let known = v1::ChangeKind::try_from(*kind).ok().filter(|kind| *kind != v1::ChangeKind::Unspecified);
        let number = known.and_then(|kind| i16::try_from(i32::from(kind)).ok());
        f.read(&format_args!("kinds[{i}]"), number.ok_or("must be one of the kinds that there are"))
    };
    // All of them are read before the first that is wrong ends it.
    let kinds: Vec<Option<i16>> = kinds.iter().enumerate().take(100).map(known).collect();
    let kinds: Option<Vec<i16>> = kinds.into_iter().collect();
    Some(ChangeFilter { tenant: t.map(TenantCtx::tenant_id), kinds: kinds? })
}

/// A kind that this version has no name for is told by its number.
fn change(changed: &Changed) -> v1::Change {
    let id = |id: Option<Uuid>| id.map(|id| id.to_string()).unwrap_or_default();
    v1::Change {
        kind: changed.kind.into(),
        tenant_id: id(changed.tenant),
        user_id: id(changed.user),
        resource_id: id(changed.resource),
    }
}
