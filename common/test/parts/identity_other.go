//go:build !linux

package parts

import "syscall"

// attributes start a process as this identity, in a group of its own: a Ctrl-C at the terminal is not for it.
func (i identity) attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Credential: i.credential}
}
