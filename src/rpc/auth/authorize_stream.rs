//! Decisions on a stream.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::HeaderMap;
use tokio::sync::mpsc::{self, OwnedPermit};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};
use tracing::Instrument as _;

use super::authorize::{AT_ONCE, decide, result};
use crate::ctx::Ctx;
use crate::decide::tenant::Claims;
use crate::error::Error;
use crate::rpc::status::{REQUEST_ID, of_framework, status};
use crate::rpc::stream::{Answers, LONGEST, PATIENCE, Turns};
use crate::rpc::{Services, v1};

/// How long a decision may take, which may wait for units that are leased elsewhere.
const TO_DECIDE: Duration = Duration::from_secs(10);

/// How long nothing may be asked.
const IDLE: Duration = Duration::from_mins(5);

type Answer = Result<v1::AuthorizeStreamResponse, Status>;

pub(super) async fn authorize_stream(
    s: &Services,
    request: Request<Streaming<v1::AuthorizeStreamRequest>>,
) -> Result<Answers<v1::AuthorizeStreamResponse>, Error> {
    let turns = Turns::take(s, &request)?;
    let headers = request.metadata().clone().into_headers();
    let (ctx, _, claims, questions) = s.0.open(request).await?;
    let (out, answers) = mpsc::channel(AT_ONCE);
    let request_id = ctx.request_id;
    let asked = Asked { s: s.clone(), ctx, claims, headers };
    let work = async move {
        let _turns = turns;
        if let Err(ended) = asked.serve(questions, &out).await {
            let _ = timeout(PATIENCE, out.send(Err(ended))).await;
        }
    };
    tokio::spawn(REQUEST_ID.scope(request_id, work).in_current_span());
    Ok(Box::pin(ReceiverStream::new(answers)))
}

/// What the questions of a stream have in common.
struct Asked {
    s: Services,
    ctx: Ctx,
    claims: Claims,
    headers: HeaderMap,
}

impl Asked {
    /// Answers until there are no more questions, nobody takes the answers, or nobody may ask any more. A place for the answer
    /// comes before the question: what has begun never waits for its reader, whatever it holds meanwhile.
    async fn serve(
        &self,
        mut questions: Streaming<v1::AuthorizeStreamRequest>,
        out: &mpsc::Sender<Answer>,
    ) -> Result<(), Status> {
        let mut stopping = self.s.0.stopping.clone();
        let mut end = std::pin::pin!(tokio::time::sleep(LONGEST));
        let mut under_way = FuturesUnordered::new();
        let ended = loop {
            let next = async {
                let place = timeout(PATIENCE, out.clone().reserve_owned()).await.ok()?.ok()?;
                Some((place, timeout(IDLE, questions.message()).await.ok()?))
            };
            tokio::select! {
                biased;
                _ = stopping.wait_for(|stops| *stops) => break Err(status(&Error::ServerStopping)),
                () = &mut end => break Ok(()),
                Some(done) = under_way.next() => {
                    if let Err(error) = done {
                        break Err(status(&error));
                    }
                }
                next = next => match next {
                    Some((place, Ok(Some(question)))) => under_way.push(self.answer(place, question)),
                    Some((_, Err(broken))) => break Err(of_framework(broken.code(), broken.message())),
                    Some((_, Ok(None))) | None => break Ok(()),
                },
            }
        };
        while let Some(done) = under_way.next().await {
            done.map_err(|error| status(&error))?;
        }
        ended
    }

    /// Who asks is found out anew: a key that was revoked asks no more, however long its stream goes on.
    async fn answer(&self, place: OwnedPermit<Answer>, m: v1::AuthorizeStreamRequest) -> Result<(), Error> {
        let decided = timeout(TO_DECIDE, async {
            let ctx = self.s.0.again(&self.ctx, &self.headers).await?;
            Ok::<_, Error>(self.decide(&ctx, &m.correlation_id, m.question).await)
        });
        let decided = decided.await.unwrap_or(Ok(Err(Error::DeadlineExceeded)))?;
        let result = Some(result(decided));
        place.send(Ok(v1::AuthorizeStreamResponse { correlation_id: m.correlation_id, result }));
        Ok(())
    }

    async fn decide(
        &self,
        ctx: &Ctx,
        correlation_id: &str,
        question: Option<v1::AuthorizeRequest>,
    ) -> Result<v1::AuthorizeResponse, Error> {
        if correlation_id.len() > 128 {
            return Err(Error::field("correlation_id", "must be at most 128 bytes"));
        }
        let question = question.ok_or_else(|| Error::field("question", "must be there"))?;
        decide(&self.s, ctx, self.claims.clone(), question).await
    }
}
