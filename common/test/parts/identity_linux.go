package parts

import "syscall"

// attributes start a process as this identity, in a group of its own: a Ctrl-C at the terminal is not for it.
func (i identity) attributes() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setpgid: true, Credential: i.credential}
	if i.masked {
		a.Cloneflags = syscall.CLONE_NEWUSER
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: maskedID, HostID: 0, Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: maskedID, HostID: 0, Size: 1}}
	}
	return a
}
