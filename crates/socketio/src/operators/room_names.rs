//! What can be taken for rooms.

/// One room or several: `"a"`, `String`, `["a", "b"]`, `&[..]`, `Vec<..>`.
pub trait RoomNames {
    #[doc(hidden)]
    fn each(&self, each: &mut dyn FnMut(&str));
}

impl RoomNames for str {
    fn each(&self, each: &mut dyn FnMut(&str)) {
        each(self);
    }
}

impl RoomNames for String {
    fn each(&self, each: &mut dyn FnMut(&str)) {
        each(self);
    }
}

impl<R: RoomNames> RoomNames for [R] {
    fn each(&self, each: &mut dyn FnMut(&str)) {
        for room in self {
            room.each(each);
        }
    }
}

impl<R: RoomNames, const N: usize> RoomNames for [R; N] {
    fn each(&self, each: &mut dyn FnMut(&str)) {
        self.as_slice().each(each);
    }
}

impl<R: RoomNames> RoomNames for Vec<R> {
    fn each(&self, each: &mut dyn FnMut(&str)) {
        self.as_slice().each(each);
    }
}

impl<R: RoomNames + ?Sized> RoomNames for &R {
    fn each(&self, each: &mut dyn FnMut(&str)) {
        (**self).each(each);
    }
}

pub(super) fn names(rooms: impl RoomNames) -> Vec<String> {
    let mut names = Vec::new();
    rooms.each(&mut |room| names.push(room.to_owned()));
    names
}
