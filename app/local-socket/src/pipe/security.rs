//! Pipes that only this user can open. The system's default lets everybody read.

use std::io;
use std::mem::size_of;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::ptr;

use tokio::net::windows::named_pipe::{NamedPipeServer, ServerOptions};
use windows_sys::Win32::Foundation::GENERIC_ALL;
use windows_sys::Win32::Security::{
    ACL, ACL_REVISION, AddAccessAllowedAce, GetTokenInformation, InitializeAcl,
    InitializeSecurityDescriptor, SECURITY_ATTRIBUTES, SECURITY_DESCRIPTOR,
    SetSecurityDescriptorDacl, TOKEN_QUERY, TOKEN_USER, TokenUser,
};
use windows_sys::Win32::System::SystemServices::SECURITY_DESCRIPTOR_REVISION;
use windows_sys::Win32::System::Threading::{GetCurrentProcess, OpenProcessToken};
use windows_sys::core::BOOL;

/// `SECURITY_MAX_SID_SIZE` is 68, and what stands around a SID is a few words.
const ENOUGH: usize = 256;

/// Aligned as the structures in it need.
#[repr(C, align(8))]
struct Buffer([u8; ENOUGH]);

fn check(done: BOOL) -> io::Result<()> {
    if done == 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Makes an instance of the pipe `name` whose access list names the user of this process, and nobody else.
pub fn create_private(options: &ServerOptions, name: &str) -> io::Result<NamedPipeServer> {
    let user = user()?;
    let mut list = Buffer([0; ENOUGH]);
    let list: *mut ACL = ptr::from_mut(&mut list).cast();
    let mut descriptor = SECURITY_DESCRIPTOR::default();
    let descriptor: *mut SECURITY_DESCRIPTOR = &mut descriptor;
    // SAFETY: `list` and `descriptor` are writable, large enough and outlive the calls; `user` holds a TOKEN_USER, whose SID
    // lies in the same boxed buffer.
    unsafe {
        let sid = ptr::from_ref(&*user).cast::<TOKEN_USER>().read().User.Sid;
        check(InitializeAcl(list, ENOUGH as u32, ACL_REVISION))?;
        check(AddAccessAllowedAce(list, ACL_REVISION, GENERIC_ALL, sid))?;
        check(InitializeSecurityDescriptor(
            descriptor.cast(),
            SECURITY_DESCRIPTOR_REVISION,
        ))?;
        check(SetSecurityDescriptorDacl(descriptor.cast(), 1, list, 0))?;
    }
    let mut attributes = SECURITY_ATTRIBUTES {
        nLength: size_of::<SECURITY_ATTRIBUTES>() as u32,
        lpSecurityDescriptor: descriptor.cast(),
        bInheritHandle: 0,
    };
    // SAFETY: the attributes and all that they point to are valid until the call returns.
    unsafe {
        options.create_with_security_attributes_raw(name, ptr::from_mut(&mut attributes).cast())
    }
}

/// The TOKEN_USER of this process.
fn user() -> io::Result<Box<Buffer>> {
    let mut user = Box::new(Buffer([0; ENOUGH]));
    let mut token = ptr::null_mut();
    let mut length = 0;
    // SAFETY: the token is a new handle that is closed with its owner; the buffer is as long as said.
    unsafe {
        check(OpenProcessToken(
            GetCurrentProcess(),
            TOKEN_QUERY,
            &mut token,
        ))?;
        let token = OwnedHandle::from_raw_handle(token);
        check(GetTokenInformation(
            token.as_raw_handle(),
            TokenUser,
            ptr::from_mut(&mut *user).cast(),
            ENOUGH as u32,
            &mut length,
        ))?;
    }
    Ok(user)
}
