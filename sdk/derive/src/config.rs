//! `#[config]`: serde's derive with strict settings, and the type's shape as a constant.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{Attribute, Data, DeriveInput, Error, Expr, Field, Fields, Lit, LitStr, Meta, Result, Token, Variant};

pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> Result<TokenStream> {
    if !arguments.is_empty() {
        return Err(Error::new_spanned(arguments, "`#[config]` takes no arguments; serde's attributes go on the type and its fields"));
    }
    let input: DeriveInput = syn::parse2(item)?;
    if let Some(generic) = input.generics.params.first() {
        return Err(Error::new_spanned(generic, "a configuration's type has no parameters: its schema is one text"));
    }
    let of_type = Serde::read(&input.attrs)?;
    let derives_default = derives_default(&input.attrs);
    let node = match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Unnamed(fields) if fields.unnamed.len() == 1 => {
                let inner = &fields.unnamed[0].ty;
                quote!(<#inner as ::weir_sdk::schema::Schema>::NODE)
            }
            fields => object(fields, &of_type, derives_default)?,
        },
        Data::Enum(data) => variants(data.variants.iter(), &of_type)?,
        Data::Union(data) => return Err(Error::new_spanned(data.union_token, "a union cannot be read from a configuration")),
    };
    let is_newtype = matches!(&input.data, Data::Struct(data) if matches!(data.fields, Fields::Unnamed(_)));
    let strict = (!is_newtype).then(|| quote!(deny_unknown_fields,));
    let rename = (of_type.rename_all.is_none() && !is_newtype).then(|| quote!(rename_all = "camelCase",));
    let name = &input.ident;
    let (text, about) = (name.to_string(), about(&input.attrs));
    Ok(quote! {
        #[derive(::weir_sdk::serde::Deserialize)]
        #[serde(crate = "::weir_sdk::serde", #strict #rename)]
        #input

        impl ::weir_sdk::schema::Schema for #name {
            const NODE: ::weir_sdk::schema::Node = ::weir_sdk::schema::Node::Named { name: #text, about: #about, node: &#node };
        }
    })
}

/// What serde is told about a type, variant or field, as far as the shape depends on it.
#[derive(Default)]
struct Serde {
    rename: Option<String>,
    rename_all: Option<String>,
    default: bool,
    /// The default is that of a function, which the schema cannot know.
    default_by: bool,
    skip: bool,
}

impl Serde {
    fn read(attributes: &[Attribute]) -> Result<Self> {
        let mut serde = Self::default();
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("serde")) {
            attribute.parse_nested_meta(|meta| {
                let text = |meta: &syn::meta::ParseNestedMeta<'_>| meta.value()?.parse::<LitStr>().map(|text| text.value());
                if meta.path.is_ident("rename") {
                    serde.rename = Some(text(&meta)?);
                } else if meta.path.is_ident("rename_all") {
                    serde.rename_all = Some(text(&meta)?);
                } else if meta.path.is_ident("skip") {
                    serde.skip = true;
                } else if meta.path.is_ident("default") {
                    serde.default = true;
                    if meta.input.peek(Token![=]) {
                        text(&meta)?;
                        serde.default_by = true;
                    }
                } else if meta.path.is_ident("deserialize_with") || meta.path.is_ident("with") || meta.path.is_ident("try_from") {
                    text(&meta)?;
                } else {
                    let name = meta.path.to_token_stream();
                    return Err(meta.error(format!("`#[config]` does not know how `{name}` changes the schema")));
                }
                Ok(())
            })?;
        }
        Ok(serde)
    }

    fn name(&self, written: &str, rule: Option<&str>) -> String {
        self.rename.clone().unwrap_or_else(|| cased(written, rule.unwrap_or("camelCase")))
    }
}

/// A Rust name under one of serde's rules.
fn cased(written: &str, rule: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for letter in written.trim_start_matches("r#").chars() {
        if letter == '_' {
            words.push(String::new());
            continue;
        }
        if words.is_empty() || letter.is_uppercase() {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.extend(letter.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    let capital = |word: &String| word.chars().next().map(|first| first.to_uppercase().chain(word.chars().skip(1)).collect::<String>());
    match rule {
        "lowercase" => words.concat(),
        "UPPERCASE" => words.concat().to_uppercase(),
        "snake_case" => words.join("_"),
        "kebab-case" => words.join("-"),
        "SCREAMING_SNAKE_CASE" => words.join("_").to_uppercase(),
        "PascalCase" => words.iter().filter_map(capital).collect(),
        _ => words.iter().enumerate().filter_map(|(at, word)| if at == 0 { Some(word.clone()) } else { capital(word) }).collect(),
    }
}

/// The first paragraph of a doc comment.
fn about(attributes: &[Attribute]) -> String {
    let mut lines = Vec::new();
    for attribute in attributes {
        if let Meta::NameValue(meta) = &attribute.meta
            && meta.path.is_ident("doc")
            && let Expr::Lit(value) = &meta.value
            && let Lit::Str(text) = &value.lit
        {
            let line = text.value().trim().to_owned();
            if line.is_empty() && !lines.is_empty() {
                break;
            }
            lines.push(line);
        }
    }
    lines.join(" ")
}

/// Whether the type's default is that of its fields.
fn derives_default(attributes: &[Attribute]) -> bool {
    attributes.iter().filter(|attribute| attribute.path().is_ident("derive")).any(|attribute| {
        let paths = attribute.parse_args_with(syn::punctuated::Punctuated::<syn::Path, Token![,]>::parse_terminated);
        paths.is_ok_and(|paths| paths.iter().any(|path| path.segments.last().is_some_and(|last| last.ident == "Default")))
    })
}

fn is_option(field: &Field) -> bool {
    matches!(&field.ty, syn::Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == "Option"))
}

fn object(fields: &Fields, of_type: &Serde, derives_default: bool) -> Result<TokenStream> {
    let mut list = Vec::new();
    for field in fields {
        let serde = Serde::read(&field.attrs)?;
        if serde.skip {
            continue;
        }
        let Some(ident) = &field.ident else {
            return Err(Error::new_spanned(field, "fields need names: they are what the operator writes"));
        };
        let name = serde.name(&ident.to_string(), of_type.rename_all.as_deref());
        let required = !(serde.default || of_type.default || is_option(field));
        let is_plain =
            (serde.default && !serde.default_by) || (!serde.default && of_type.default && !of_type.default_by && derives_default);
        let (about, ty) = (about(&field.attrs), &field.ty);
        let node = quote!(&<#ty as ::weir_sdk::schema::Schema>::NODE);
        list.push(quote!(::weir_sdk::schema::Field { name: #name, about: #about, required: #required, is_plain: #is_plain, node: #node }));
    }
    Ok(quote!(::weir_sdk::schema::Node::Fields(&[#(#list),*])))
}

fn variants<'v>(variants: impl Iterator<Item = &'v Variant>, of_type: &Serde) -> Result<TokenStream> {
    let (mut names, mut fields) = (Vec::new(), Vec::new());
    for variant in variants {
        let serde = Serde::read(&variant.attrs)?;
        if serde.skip {
            continue;
        }
        let name = serde.name(&variant.ident.to_string(), of_type.rename_all.as_deref());
        let about = about(&variant.attrs);
        let node = match &variant.fields {
            Fields::Unit => {
                let is_default = variant.attrs.iter().any(|attribute| attribute.path().is_ident("default"));
                names.push(quote!(::weir_sdk::schema::Name { name: #name, about: #about, is_default: #is_default }));
                continue;
            }
            Fields::Unnamed(unnamed) if unnamed.unnamed.len() == 1 => {
                let inner = &unnamed.unnamed[0].ty;
                quote!(&<#inner as ::weir_sdk::schema::Schema>::NODE)
            }
            Fields::Unnamed(unnamed) => return Err(Error::new_spanned(unnamed, "a variant has one value, or named fields")),
            // serde keeps the names of a variant's fields as they are written, unless told otherwise.
            named => {
                let object = object(named, &Serde { rename_all: Some("snake_case".into()), ..Serde::default() }, false)?;
                quote!(&#object)
            }
        };
        fields.push(quote!(::weir_sdk::schema::Field { name: #name, about: #about, required: false, is_plain: false, node: #node }));
    }
    if fields.is_empty() {
        return Ok(quote!(::weir_sdk::schema::Node::OneOf(&[#(#names),*])));
    }
    Ok(quote!(::weir_sdk::schema::Node::Variant { names: &[#(#names),*], fields: &[#(#fields),*] }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_of_serde() {
        for (written, rule, expected) in [
            ("max_age", "camelCase", "maxAge"),
            ("r#type", "camelCase", "type"),
            ("MaxAge", "camelCase", "maxAge"),
            ("MaxAge", "kebab-case", "max-age"),
            ("MaxAge", "SCREAMING_SNAKE_CASE", "MAX_AGE"),
            ("MaxAge", "lowercase", "maxage"),
            ("max_age", "PascalCase", "MaxAge"),
            ("max_age", "snake_case", "max_age"),
        ] {
            assert_eq!(cased(written, rule), expected, "{written} {rule}");
        }
    }

    #[test]
    fn what_would_make_the_schema_lie_is_refused() {
        for (item, why) in [
            (
                quote!(
                    struct A<T> {
                        a: T,
                    }
                ),
                "no parameters",
            ),
            (
                quote!(
                    struct A {
                        #[serde(flatten)]
                        a: B,
                    }
                ),
                "flatten",
            ),
            (
                quote!(
                    enum A {
                        B(u8, u8),
                    }
                ),
                "one value",
            ),
            (
                quote!(
                    struct A(u8, u8);
                ),
                "need names",
            ),
        ] {
            let said = expand(TokenStream::new(), item).unwrap_err().to_string();
            assert!(said.contains(why), "{said}");
        }
    }
}
