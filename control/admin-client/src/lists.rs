//! Objects of the admin API: read to the last page, put and removed.

use proto::v1;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tonic::Status;

use crate::Admin;

/// What a controller gives at most.
const PAGE_SIZE: u32 = 1000;

impl Admin {
    /// The list of kinds.
    pub async fn kinds(&self) -> Result<Vec<v1::KindOfObject>, Status> {
        Ok(self.objects().list_kinds(v1::ListKindsRequest {}).await?.into_inner().kinds)
    }

    pub async fn object(&self, kind: &str, key: &str) -> Result<v1::Object, Status> {
        let request = v1::GetObjectRequest { kind: kind.to_owned(), key: key.to_owned() };
        Ok(self.objects().get(request).await?.into_inner())
    }

    /// The message of an object, such as `v1::App`.
    pub async fn read<T: DeserializeOwned>(&self, kind: &str, key: &str) -> Result<T, Status> {
        message(&self.object(kind, key).await?)
    }

    /// Every page of the list.
    pub async fn all(&self, kind: &str) -> Result<Vec<v1::Object>, Status> {
        self.matching(v1::ListObjectsRequest { kind: kind.to_owned(), ..Default::default() }).await
    }

    pub async fn matching(&self, wanted: v1::ListObjectsRequest) -> Result<Vec<v1::Object>, Status> {
        let mut all = Vec::new();
        let mut token = String::new();
        loop {
            let page = Some(v1::Page { size: PAGE_SIZE, token });
            let answer = self.objects().list(v1::ListObjectsRequest { page, ..wanted.clone() }).await?.into_inner();
            all.extend(answer.objects);
            if answer.next_page_token.is_empty() {
                return Ok(all);
            }
            token = answer.next_page_token;
        }
    }

    /// The messages of every object of a kind.
    pub async fn read_all<T: DeserializeOwned>(&self, kind: &str) -> Result<Vec<T>, Status> {
        self.all(kind).await?.iter().map(message).collect()
    }

    /// Makes or changes one object: `fields` is its message or a part of it.
    pub async fn put(
        &self,
        change: Option<v1::Change>,
        kind: &str,
        fields: Value,
    ) -> Result<v1::ApplyResponse, Status> {
        let objects = vec![wanted(kind, fields, v1::Wish::Put)];
        self.apply(v1::ApplyRequest { change, objects, ..Default::default() }).await
    }

    /// Makes one object; refused when it is there.
    pub async fn create(
        &self,
        change: Option<v1::Change>,
        kind: &str,
        fields: Value,
    ) -> Result<v1::ApplyResponse, Status> {
        let objects = vec![wanted(kind, fields, v1::Wish::Create)];
        self.apply(v1::ApplyRequest { change, objects, ..Default::default() }).await
    }

    /// Changes one object; refused when it is not there.
    pub async fn change(
        &self,
        change: Option<v1::Change>,
        kind: &str,
        fields: Value,
    ) -> Result<v1::ApplyResponse, Status> {
        let objects = vec![wanted(kind, fields, v1::Wish::Change)];
        self.apply(v1::ApplyRequest { change, objects, ..Default::default() }).await
    }

    /// Removes the object that `fields` name, by `id` (or the name there) or by
    /// the fields of its key.
    pub async fn remove(
        &self,
        change: Option<v1::Change>,
        kind: &str,
        fields: Value,
    ) -> Result<v1::ApplyResponse, Status> {
        let removed = vec![wanted(kind, fields, v1::Wish::Put)];
        self.apply(v1::ApplyRequest { change, removed, ..Default::default() }).await
    }

    pub async fn apply(&self, request: v1::ApplyRequest) -> Result<v1::ApplyResponse, Status> {
        Ok(self.objects().apply(request).await?.into_inner())
    }
}

/// One object of a request.
pub fn wanted(kind: &str, fields: Value, wish: v1::Wish) -> v1::ObjectFields {
    v1::ObjectFields { kind: kind.to_owned(), fields: fields.to_string(), wish: wish.into() }
}

/// What names an object that has an id or a name.
pub fn by_name(id_or_name: &str) -> Value {
    json!({ "id": id_or_name })
}

fn message<T: DeserializeOwned>(object: &v1::Object) -> Result<T, Status> {
    let read = serde_json::from_str(&object.fields);
    read.map_err(|error| Status::internal(format!("the controller is of another release: {error}")))
}
