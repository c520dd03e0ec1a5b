//! Where a page is, as a query: at most one of four parameters. A schema can say so of the fields of an object, and an
//! object in a query can be spelled as a parameter per field.

use natterjack_protocol::{
    MsgId,
    schema::{PageLimit, Time},
};
use utoipa::{
    IntoParams, PartialSchema,
    openapi::{
        ObjectBuilder, RefOr, Required, Schema,
        path::{Parameter, ParameterBuilder, ParameterIn, ParameterStyle},
    },
};

pub struct Place;

impl IntoParams for Place {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let place = ObjectBuilder::new()
            .property("before", said(MsgId::schema(), "The page that ends just below this id."))
            .property("after", said(MsgId::schema(), "The page that begins just above this id."))
            .property("around", said(MsgId::schema(), "Half a page on each side of this id."))
            .property(
                "at",
                said(
                    Time::schema(),
                    "The page that begins with the first event at or after this time, in milliseconds since 1970.",
                ),
            )
            .max_properties(Some(1))
            .additional_properties(Some(utoipa::openapi::schema::AdditionalProperties::FreeForm(false)));
        let query =
            |name: &str| ParameterBuilder::new().name(name).parameter_in(ParameterIn::Query).required(Required::False);
        let place = query("place")
            .description(Some(
                "At most one of these parameters: `?before=`, `?after=`, `?around=` or `?at=`. None: the newest page.",
            ))
            .style(Some(ParameterStyle::Form))
            .explode(Some(true))
            .schema(Some(place));
        let limit = query("limit")
            .description(Some("How many events at most; 50 if missing."))
            .schema(Some(PageLimit::schema()));
        vec![place.build(), limit.build()]
    }
}

fn said(schema: RefOr<Schema>, what: &str) -> RefOr<Schema> {
    match schema {
        RefOr::T(Schema::Object(mut object)) => {
            object.description = Some(what.to_owned());
            RefOr::T(Schema::Object(object))
        }
        other => other,
    }
}
