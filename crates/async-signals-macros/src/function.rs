//! What the attribute stands on, and what is put beside it.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{Attribute, Error, FnArg, Ident, ItemFn, Result, Safety, spanned::Spanned};

use crate::arguments::Arguments;

/// A function that can be a receiver, as far as its text tells.
pub(crate) struct Function {
    name: Ident,
    /// Where a wrong type is to be shown: its parameters, or its name.
    shown_at: Span,
    /// `#[cfg]`s that stand below ours: what they take away cannot be connected.
    conditions: Vec<Attribute>,
}

impl Function {
    pub(crate) fn read(item: TokenStream) -> Result<Self> {
        let span = item.clone().into_iter().next().map_or_else(Span::call_site, |token| token.span());
        let function = syn::parse2::<ItemFn>(item).map_err(|_| Error::new(span, "#[receiver] stands on a function"))?;
        let signature = &function.sig;
        if let Some(FnArg::Receiver(own)) = signature.inputs.first() {
            let text = "a receiver has no `self`: nobody knows on which value to call it; use a free function";
            return Err(Error::new(own.span(), text));
        }
        if let Some(parameter) = signature.generics.type_params().next() {
            let text = "a receiver cannot be generic: nobody says for which type to call it";
            return Err(Error::new(parameter.span(), text));
        }
        if let Some(parameter) = signature.generics.const_params().next() {
            let text = "a receiver cannot be generic: nobody says for which value to call it";
            return Err(Error::new(parameter.span(), text));
        }
        if let Safety::Unsafe(unsafety) = &signature.safety {
            return Err(Error::new(unsafety.span(), "a receiver cannot be unsafe: nobody keeps its promises"));
        }
        if !(1..=2).contains(&signature.inputs.len()) {
            let span = signature.inputs.iter().nth(2).map_or(signature.ident.span(), Spanned::span);
            return Err(Error::new(span, "a receiver takes the signal's payload, and the `Delivery` if it wants it"));
        }
        let conditions = function.attrs.iter().filter(|attribute| attribute.path().is_ident("cfg")).cloned().collect();
        Ok(Self { name: signature.ident.clone(), shown_at: signature.inputs.span(), conditions })
    }

    /// The item that has it connected when the program starts to need it.
    pub(crate) fn connecting(&self, Arguments { signals, options }: &Arguments) -> TokenStream {
        let Self { name, shown_at, conditions } = self;
        let options = options.iter().map(|(key, value)| quote_spanned!(value.span()=> .#key(#value)));
        let options = quote! {
            ::async_signals::Connect::new()
                .name(::core::concat!(::core::module_path!(), "::", ::core::stringify!(#name)))
                #(#options)*
        };
        let connects = signals.iter().map(|signal| {
            // The types meet in this call: it is to be shown where they are written.
            quote_spanned!(*shown_at=> ::async_signals::__private::connect(&#signal, #name, #options)?;)
        });
        quote! {
            #(#conditions)*
            const _: () = {
                ::async_signals::__private::submit! {
                    ::async_signals::__private::Linked::new(|| {
                        #(#connects)*
                        ::core::result::Result::Ok(())
                    })
                }
            };
        }
    }
}
