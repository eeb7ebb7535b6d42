//! Handles as typed fields of a message.

use alloc::vec::Vec;

use sys::{
    Channel, DmaDomain, Event, Handle, HandleList, HandleType, Interrupt, Pin, Port, Process,
    Resource, Thread, Timer, Vmo,
};

use crate::codec::CodecError;

/// A field of a message that is one or more handles.
pub trait HandleField: Sized {
    /// How many handles it is.
    fn count(&self) -> usize;
    /// Moves them into the message.
    fn put(self, list: &mut HandleList) -> Result<(), CodecError>;
    /// Takes `count` handles from the message.
    fn take(list: &mut HandleList, count: usize) -> Result<Self, CodecError>;
}

fn put_one(handle: impl HandleType, list: &mut HandleList) -> Result<(), CodecError> {
    list.push(handle).map_err(|_| CodecError::TooManyHandles)
}

/// Takes one handle.
pub(crate) fn take_one<T: HandleType>(list: &mut HandleList) -> Result<T, CodecError> {
    list.pop_front()
        .map(Handle::into_type)
        .ok_or(CodecError::MissingHandle)
}

macro_rules! handle_fields {
    ($($kind:ident)*) => {
        $(
            impl HandleField for $kind {
                fn count(&self) -> usize {
                    1
                }
                fn put(self, list: &mut HandleList) -> Result<(), CodecError> {
                    put_one(self, list)
                }
                fn take(list: &mut HandleList, count: usize) -> Result<Self, CodecError> {
                    match count {
                        1 => take_one(list),
                        _ => Err(CodecError::HandleCount { expected: 1, seen: count }),
                    }
                }
            }
        )*
    };
}
handle_fields! { Handle Channel Port Event Timer Vmo Process Thread Interrupt Resource DmaDomain Pin }

impl<T: HandleField> HandleField for Option<T> {
    fn count(&self) -> usize {
        self.as_ref().map_or(0, HandleField::count)
    }
    fn put(self, list: &mut HandleList) -> Result<(), CodecError> {
        self.map_or(Ok(()), |field| field.put(list))
    }
    fn take(list: &mut HandleList, count: usize) -> Result<Self, CodecError> {
        match count {
            0 => Ok(None),
            count => T::take(list, count).map(Some),
        }
    }
}

impl<T: HandleField> HandleField for Vec<T> {
    fn count(&self) -> usize {
        self.iter().map(HandleField::count).sum()
    }
    fn put(self, list: &mut HandleList) -> Result<(), CodecError> {
        self.into_iter().try_for_each(|field| field.put(list))
    }
    fn take(list: &mut HandleList, count: usize) -> Result<Self, CodecError> {
        (0..count).map(|_| T::take(list, 1)).collect()
    }
}

/// All handle fields of a message: a tuple of [`HandleField`]s.
pub trait Handles: Sized {
    /// The number of handles of each field, as it stands in the message.
    type Counts: serde::Serialize + serde::de::DeserializeOwned;
    /// Moves the handles into a message.
    fn put(self, list: &mut HandleList) -> Result<Self::Counts, CodecError>;
    /// Takes them from a message, all of them.
    fn take(list: &mut HandleList, counts: Self::Counts) -> Result<Self, CodecError>;
}

macro_rules! count_type {
    ($field:ident) => {
        u8
    };
}

macro_rules! handle_tuples {
    ($(($($field:ident $count:ident),*);)*) => {
        $(
            impl<$($field: HandleField),*> Handles for ($($field,)*) {
                type Counts = ($(count_type!($field),)*);

                #[allow(non_snake_case, unused_variables, clippy::unused_unit, reason = "generated for each number of fields")]
                fn put(self, list: &mut HandleList) -> Result<Self::Counts, CodecError> {
                    let ($($field,)*) = self;
                    $(
                        let $count = u8::try_from($field.count())
                            .map_err(|_| CodecError::TooManyHandles)?;
                        $field.put(list)?;
                    )*
                    Ok(($($count,)*))
                }

                #[allow(non_snake_case, clippy::unused_unit, reason = "generated for each number of fields")]
                fn take(list: &mut HandleList, counts: Self::Counts) -> Result<Self, CodecError> {
                    let ($($count,)*) = counts;
                    let expected: usize = 0 $(+ usize::from($count))*;
                    if expected != list.len() {
                        return Err(CodecError::HandleCount { expected, seen: list.len() });
                    }
                    Ok(($($field::take(list, usize::from($count))?,)*))
                }
            }
        )*
    };
}
handle_tuples! {
    ();
    (A a);
    (A a, B b);
    (A a, B b, C c);
    (A a, B b, C c, D d);
    (A a, B b, C c, D d, E e);
    (A a, B b, C c, D d, E e, F f);
    (A a, B b, C c, D d, E e, F f, G g);
    (A a, B b, C c, D d, E e, F f, G g, H h);
}
