//! Calls by descriptor: every method that the server has, with bytes for a body and any headers.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue};
use prost_reflect::prost::Message as _;
use prost_reflect::prost::bytes::{Buf as _, BufMut as _};
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MethodDescriptor, Value};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Code, Extensions, Request, Response, Status};
use tonic_types::StatusExt as _;

/// All descriptors.
pub(crate) fn pool() -> &'static DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    POOL.get_or_init(|| DescriptorPool::decode(tenantry::rpc::DESCRIPTORS).expect("descriptors"))
}

/// Every method of ours, service by service.
pub(crate) fn methods() -> Vec<MethodDescriptor> {
    let ours = pool().services().filter(|service| service.full_name().starts_with("tenantry.v1."));
    let methods: Vec<_> = ours.flat_map(|service| service.methods().collect::<Vec<_>>()).collect();
    assert!(methods.len() > 20, "the descriptors have lost methods");
    methods
}

/// The methods whose request names a tenant.
pub(crate) fn methods_of_a_tenant() -> Vec<MethodDescriptor> {
    methods()
        .into_iter()
        .filter(|method| access(method).tenant == tenantry::rpc::access::TenantRule::Required)
        .collect()
}

/// Those of them that members may call, if their role allows it.
pub(crate) fn methods_of_members() -> Vec<MethodDescriptor> {
    let of_members =
        |method: &MethodDescriptor| matches!(access(method).who, tenantry::rpc::access::Who::Permission(_));
    methods_of_a_tenant().into_iter().filter(of_members).collect()
}

/// The rule of a method.
pub(crate) fn access(method: &MethodDescriptor) -> &'static tenantry::rpc::access::Access {
    tenantry::rpc::access::Access::of(&path(method)).expect("a rule")
}

/// `/package.Service/Method`.
pub(crate) fn path(method: &MethodDescriptor) -> String {
    format!("/{}/{}", method.parent_service().full_name(), method.name())
}

/// A request of a method with these fields, where it has them, as text.
pub(crate) fn request(method: &MethodDescriptor, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut message = DynamicMessage::new(method.input());
    for (name, text) in fields {
        if let Some(field) = method.input().get_field_by_name(name)
            && field.kind() == Kind::String
        {
            let text = Value::String((*text).to_owned());
            message.set_field(&field, if field.is_list() { Value::List(vec![text]) } else { text });
        }
    }
    message.encode_to_vec()
}

/// Headers from pairs.
pub(crate) fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &str)| {
        (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).expect("a header value"))
    };
    let mut map = HeaderMap::new();
    for (name, value) in pairs.iter().map(pair) {
        map.append(name, value);
    }
    map
}

/// Calls a method with any body.
pub(crate) async fn call(
    channel: &Channel,
    path: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response<Vec<u8>>, Status> {
    let metadata = MetadataMap::from_headers(headers.clone());
    let request = Request::from_parts(metadata, Extensions::default(), body.to_vec());
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.expect("a connection");
    let at = path.parse::<PathAndQuery>().expect("a path");
    if path.ends_with("/WatchChanges") {
        // It has no end: what it says first is the answer.
        let mut answers = client.server_streaming(request, at, Bytes).await?;
        let first = answers.get_mut().message().await?;
        return Ok(answers.map(|_| first.unwrap_or_default()));
    }
    match client.unary(request, at, Bytes).await {
        // A stream that ended well and had nothing to say.
        Err(status) if status.message() == "Missing response message." => Ok(Response::new(Vec::new())),
        answer => answer,
    }
}

/// The code and reason of an answer; `Ok` has none.
pub(crate) fn told(answer: &Result<Response<Vec<u8>>, Status>) -> (Code, String) {
    match answer {
        Ok(_) => (Code::Ok, String::new()),
        Err(status) => {
            let info = status.get_details_error_info().unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
            assert_eq!(info.domain, "tenantry");
            (status.code(), info.reason)
        }
    }
}

/// All that a client can see of an answer, apart from the values of metadata: each has an id of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    code: Code,
    message: String,
    details: Vec<u8>,
    keys: BTreeSet<String>,
    body: Vec<u8>,
}

impl From<Result<Response<Vec<u8>>, Status>> for Seen {
    fn from(answer: Result<Response<Vec<u8>>, Status>) -> Self {
        let keys = |metadata: &MetadataMap| metadata.clone().into_headers().keys().map(ToString::to_string).collect();
        match answer {
            Ok(response) => Self {
                code: Code::Ok,
                message: String::new(),
                details: Vec::new(),
                keys: keys(response.metadata()),
                body: response.into_inner(),
            },
            Err(status) => Self {
                code: status.code(),
                message: status.message().to_owned(),
                details: status.details().to_vec(),
                keys: keys(status.metadata()),
                body: Vec::new(),
            },
        }
    }
}

/// Bodies as they are.
#[derive(Debug, Clone, Copy)]
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut item = vec![0; buffer.remaining()];
        buffer.copy_to_slice(&mut item);
        Ok(Some(item))
    }
}
