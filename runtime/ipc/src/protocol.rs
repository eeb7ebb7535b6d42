//! The [`protocol!`](crate::protocol!) macro.

/// Declares a protocol; see the crate's documentation for the form and for what it generates.
///
/// For `protocol Name("id", version = V, error = E)`: `NameClient` (blocking), `NameAsyncClient`
/// (over an [`AsyncTransport`](crate::AsyncTransport)), `NameServer`, `NameRequest`, and for each
/// method with a reply `NameMethodReply`.
#[macro_export]
macro_rules! protocol {
    (
        $(#[$doc:meta])*
        $vis:vis protocol $name:ident($id:literal, version = $version:literal, error = $error:ty) {
            $(
                $(#[$mdoc:meta])*
                $ordinal:literal = $method:ident(
                    $($arg:ident: $arg_type:ty),* $(,)? $(; $($handle:ident: $handle_type:ty),* $(,)?)?
                ) $(-> (
                    $($res:ident: $res_type:ty),* $(,)? $(; $($res_handle:ident: $res_handle_type:ty),* $(,)?)?
                ))?;
            )*
        }
    ) => { $crate::paste! {
        $(#[$doc])*
        ///
        /// This is the client's end; each method calls the server and waits for its reply.
        #[derive(Debug)]
        $vis struct [<$name Client>] {
            channel: $crate::Channel,
            timeout: ::core::time::Duration,
            on_death: $crate::OnDeath,
        }

        #[allow(dead_code, clippy::too_many_arguments, clippy::type_complexity, unused_parens,
            reason = "generated for any number of arguments")]
        impl [<$name Client>] {
            /// Calls go over this channel.
            pub const fn new(channel: $crate::Channel) -> Self {
                Self {
                    channel,
                    timeout: $crate::DEFAULT_TIMEOUT,
                    on_death: $crate::OnDeath::Fail,
                }
            }
            /// Calls that the server took and left unanswered when it died go to its successor: see
            /// [`OnDeath::Repeat`]($crate::OnDeath::Repeat).
            pub const fn repeating(mut self) -> Self {
                self.on_death = $crate::OnDeath::Repeat;
                self
            }
            /// Calls have this much time each.
            pub const fn with_timeout(mut self, timeout: ::core::time::Duration) -> Self {
                self.timeout = timeout;
                self
            }
            /// The channel.
            pub const fn channel(&self) -> &$crate::Channel {
                &self.channel
            }
            /// The channel, owned.
            pub fn into_channel(self) -> $crate::Channel {
                self.channel
            }
            /// A second client of the same server.
            pub fn duplicate(&self) -> ::core::result::Result<Self, $crate::Error> {
                let channel = $crate::sys::AsHandle::duplicate(&self.channel)?;
                Ok(Self { channel, timeout: self.timeout, on_death: self.on_death })
            }

            $($crate::protocol! { @client_method
                [$id, $version, $ordinal, $error] $(#[$mdoc])* $method
                ($($arg: $arg_type),*) ($($($handle: $handle_type),*)?)
                $(($($res: $res_type),*) ($($($res_handle: $res_handle_type),*)?))?
            })*
        }

        impl From<$crate::Channel> for [<$name Client>] {
            fn from(channel: $crate::Channel) -> Self {
                Self::new(channel)
            }
        }

        impl $crate::HandleField for [<$name Client>] {
            fn count(&self) -> usize {
                1
            }
            fn put(self, list: &mut $crate::HandleList)
                -> ::core::result::Result<(), $crate::CodecError> {
                $crate::HandleField::put(self.channel, list)
            }
            fn take(list: &mut $crate::HandleList, count: usize)
                -> ::core::result::Result<Self, $crate::CodecError> {
                <$crate::Channel as $crate::HandleField>::take(list, count).map(Self::new)
            }
        }

        #[doc = concat!("Asynchronous client of [`", stringify!([<$name Client>]), "`]'s protocol.")]
        #[derive(Debug)]
        $vis struct [<$name AsyncClient>]<T> {
            transport: T,
            timeout: ::core::time::Duration,
        }

        #[allow(dead_code, clippy::too_many_arguments, clippy::type_complexity, unused_parens,
            reason = "generated for any number of arguments")]
        impl<T: $crate::AsyncTransport> [<$name AsyncClient>]<T> {
            /// Calls go over this transport.
            pub const fn new(transport: T) -> Self {
                Self { transport, timeout: $crate::DEFAULT_TIMEOUT }
            }
            /// Calls have this much time each.
            pub const fn with_timeout(transport: T, timeout: ::core::time::Duration) -> Self {
                Self { transport, timeout }
            }
            /// The transport.
            pub const fn transport(&self) -> &T {
                &self.transport
            }

            $($crate::protocol! { @async_method
                [$id, $version, $ordinal, $error] $(#[$mdoc])* $method
                ($($arg: $arg_type),*) ($($($handle: $handle_type),*)?)
                $(($($res: $res_type),*) ($($($res_handle: $res_handle_type),*)?))?
            })*
        }

        #[doc = concat!("A request to a [`", stringify!([<$name Server>]), "`].")]
        #[derive(Debug)]
        #[allow(missing_docs, clippy::large_enum_variant, reason = "fields are the method's arguments")]
        $vis enum [<$name Request>] {
            $(
                $(#[$mdoc])*
                [<$method:camel>] {
                    $($arg: $arg_type,)*
                    $($($handle: $handle_type,)*)?
                    $(reply: $crate::protocol!(@reply_type [<$name $method:camel Reply>] ($($res)*)),)?
                },
            )*
        }

        $($crate::protocol! { @reply
            $vis [<$name $method:camel Reply>] $name $method $error;
            $(($($res: $res_type),*) ($($($res_handle: $res_handle_type),*)?))?
        })*

        #[doc = concat!("The server's end of [`", stringify!([<$name Client>]), "`]'s protocol.")]
        #[derive(Clone, Debug)]
        $vis struct [<$name Server>] {
            end: $crate::ServerEnd,
        }

        #[allow(dead_code, reason = "generated for every protocol")]
        impl [<$name Server>] {
            /// Number of the protocol.
            pub const PROTOCOL: u32 = $crate::protocol_id($id);
            /// Version of the protocol.
            pub const VERSION: u16 = $version;

            /// Serves this channel.
            pub fn new(channel: $crate::Channel) -> Self {
                Self { end: $crate::ServerEnd::new(channel) }
            }

            /// A new channel's two ends.
            pub fn pair() -> ::core::result::Result<([<$name Client>], Self), $crate::Error> {
                let (client, server) = $crate::Channel::create()?;
                Ok(([<$name Client>]::new(client), Self::new(server)))
            }

            /// The channel.
            pub fn channel(&self) -> &$crate::Channel {
                self.end.channel()
            }

            /// Waits for the next request. `PeerClosed` once the last client end is closed and
            /// everything is read; `TimedOut`.
            pub fn next(&self, deadline: $crate::Deadline)
                -> ::core::result::Result<[<$name Request>], $crate::Error> {
                self.end.receive(Self::PROTOCOL, Self::VERSION, deadline, Self::decode)
            }

            fn decode(ordinal: u16, incoming: &mut $crate::Incoming<'_>)
                -> ::core::result::Result<[<$name Request>], $crate::Refusal> {
                let _ = &incoming;
                match ordinal {
                    $(
                        $ordinal => $crate::protocol! { @decode incoming
                            [<$name Request>] [<$method:camel>] [<$name $method:camel Reply>]
                            ($($arg: $arg_type),*) ($($($handle: $handle_type),*)?)
                            $(($($res)*))?
                        },
                    )*
                    ordinal => Err($crate::Refusal::UnknownMethod { ordinal }),
                }
            }
        }

        impl $crate::Server for [<$name Server>] {
            type Request = [<$name Request>];
            fn channel(&self) -> &$crate::Channel {
                self.end.channel()
            }
            fn try_next(&self)
                -> ::core::result::Result<::core::option::Option<Self::Request>, $crate::Error> {
                match self.next($crate::Deadline::NOW) {
                    Ok(request) => Ok(Some(request)),
                    Err($crate::Error::TimedOut | $crate::Error::ShouldWait) => Ok(None),
                    Err(error) => Err(error),
                }
            }
        }
    } };

    (@reply_type $reply:ident ($($res:ident)*)) => { $reply };

    // One result is itself, several are a tuple.
    (@types ($single:ty,)) => { $single };
    (@types ($($several:ty,)*)) => { ($($several,)*) };
    (@values ($single:ident,)) => { $single };
    (@values ($($several:ident,)*)) => { ($($several,)*) };

    // With a reply.
    (@client_method [$id:literal, $version:literal, $ordinal:literal, $error:ty]
        $(#[$mdoc:meta])* $method:ident
        ($($arg:ident: $arg_type:ty),*) ($($handle:ident: $handle_type:ty),*)
        ($($res:ident: $res_type:ty),*) ($($res_handle:ident: $res_handle_type:ty),*)
    ) => {
        $(#[$mdoc])*
        pub fn $method(&self $(, $arg: impl $crate::Encodes<$arg_type>)* $(, $handle: $handle_type)*)
            -> ::core::result::Result<$crate::protocol!(@types ($($res_type,)* $($res_handle_type,)*)), $crate::CallError<$error>>
        {
            const METHOD: $crate::Method = $crate::Method {
                protocol: $crate::protocol_id($id), version: $version, ordinal: $ordinal };
            let deadline = $crate::Deadline::after(self.timeout);
            let (($($res,)*), ($($res_handle,)*)) =
                $crate::call::<_, _, ($($res_type,)*), ($($res_handle_type,)*), $error>(
                    &self.channel, METHOD, &($($arg,)*), ($($handle,)*), (deadline, self.on_death))?;
            Ok($crate::protocol!(@values ($($res,)* $($res_handle,)*)))
        }
    };
    // Without.
    (@client_method [$id:literal, $version:literal, $ordinal:literal, $error:ty]
        $(#[$mdoc:meta])* $method:ident
        ($($arg:ident: $arg_type:ty),*) ($($handle:ident: $handle_type:ty),*)
    ) => {
        $(#[$mdoc])*
        pub fn $method(&self $(, $arg: impl $crate::Encodes<$arg_type>)* $(, $handle: $handle_type)*)
            -> ::core::result::Result<(), $crate::CallError<$error>>
        {
            const METHOD: $crate::Method = $crate::Method {
                protocol: $crate::protocol_id($id), version: $version, ordinal: $ordinal };
            $crate::send(&self.channel, METHOD, &($($arg,)*), ($($handle,)*))
        }
    };

    (@async_method [$id:literal, $version:literal, $ordinal:literal, $error:ty]
        $(#[$mdoc:meta])* $method:ident
        ($($arg:ident: $arg_type:ty),*) ($($handle:ident: $handle_type:ty),*)
        ($($res:ident: $res_type:ty),*) ($($res_handle:ident: $res_handle_type:ty),*)
    ) => {
        $(#[$mdoc])*
        pub async fn $method(&self $(, $arg: impl $crate::Encodes<$arg_type>)* $(, $handle: $handle_type)*)
            -> ::core::result::Result<$crate::protocol!(@types ($($res_type,)* $($res_handle_type,)*)), $crate::CallError<$error>>
        {
            const METHOD: $crate::Method = $crate::Method {
                protocol: $crate::protocol_id($id), version: $version, ordinal: $ordinal };
            let deadline = $crate::Deadline::after(self.timeout);
            let (($($res,)*), ($($res_handle,)*)) =
                $crate::call_async::<_, _, _, ($($res_type,)*), ($($res_handle_type,)*), $error>(
                    &self.transport, METHOD, ($($arg,)*), ($($handle,)*), deadline).await?;
            Ok($crate::protocol!(@values ($($res,)* $($res_handle,)*)))
        }
    };
    (@async_method [$id:literal, $version:literal, $ordinal:literal, $error:ty]
        $(#[$mdoc:meta])* $method:ident
        ($($arg:ident: $arg_type:ty),*) ($($handle:ident: $handle_type:ty),*)
    ) => {
        $(#[$mdoc])*
        pub async fn $method(&self $(, $arg: impl $crate::Encodes<$arg_type>)* $(, $handle: $handle_type)*)
            -> ::core::result::Result<(), $crate::CallError<$error>>
        {
            const METHOD: $crate::Method = $crate::Method {
                protocol: $crate::protocol_id($id), version: $version, ordinal: $ordinal };
            $crate::send_async(&self.transport, METHOD, ($($arg,)*), ($($handle,)*)).await
        }
    };

    (@reply $vis:vis $reply:ident $name:ident $method:ident $error:ty;) => {};
    (@reply $vis:vis $reply:ident $name:ident $method:ident $error:ty;
        ($($res:ident: $res_type:ty),*) ($($res_handle:ident: $res_handle_type:ty),*)
    ) => {
        #[doc = concat!("The reply to `", stringify!($method), "`. Dropping it tells the client that there is none.")]
        #[derive(Debug)]
        #[must_use = "the client waits for its reply"]
        $vis struct $reply($crate::ReplyTo);

        #[allow(dead_code, clippy::too_many_arguments, clippy::type_complexity, unused_parens,
            reason = "generated for any number of results")]
        impl $reply {
            /// Sends the results. Errors as for [`ReplyTo::ok`]($crate::ReplyTo::ok); the client being
            /// gone is nothing that a server need mind.
            pub fn ok(self $(, $res: impl $crate::Encodes<$res_type>)* $(, $res_handle: $res_handle_type)*)
                -> ::core::result::Result<(), $crate::Error>
            {
                self.0.ok(&($($res,)*), ($($res_handle,)*))
            }
            /// Sends the protocol's error.
            pub fn error(self, error: impl $crate::Encodes<$error>)
                -> ::core::result::Result<(), $crate::Error>
            {
                self.0.error(&error)
            }
            /// Sends the results or the error.
            pub fn send(self, result: ::core::result::Result<
                $crate::protocol!(@types ($($res_type,)* $($res_handle_type,)*)), $error>)
                -> ::core::result::Result<(), $crate::Error>
            {
                match result {
                    Ok($crate::protocol!(@values ($($res,)* $($res_handle,)*))) => {
                        self.ok($($res,)* $($res_handle),*)
                    }
                    Err(error) => self.error(error),
                }
            }
        }
    };

    (@decode $incoming:ident $request:ident $variant:ident $reply:ident
        ($($arg:ident: $arg_type:ty),*) ($($handle:ident: $handle_type:ty),*) ($($res:ident)*)
    ) => {{
        let (($($arg,)*), ($($handle,)*), reply) =
            $incoming.call::<($($arg_type,)*), ($($handle_type,)*)>()?;
        Ok($request::$variant { $($arg,)* $($handle,)* reply: $reply(reply) })
    }};
    (@decode $incoming:ident $request:ident $variant:ident $reply:ident
        ($($arg:ident: $arg_type:ty),*) ($($handle:ident: $handle_type:ty),*)
    ) => {{
        let (($($arg,)*), ($($handle,)*)) =
            $incoming.message::<($($arg_type,)*), ($($handle_type,)*)>()?;
        Ok($request::$variant { $($arg,)* $($handle,)* })
    }};
}
