package main

// #cgo CFLAGS: -O2
// #include <stdlib.h>
// #include "blocked.h"
import "C"

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"sort"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

const (
	holdTime    = 500 * time.Millisecond
	blockedEach = 40
)

// A goroutine holds its P for 500 ms; how late is what stands behind it?  The timers are
// armed by the holder itself (time.AfterFunc), so they belong to its P; the poller of
// descriptors is everybody's.  Coroutines are submitted by a real pthread through cgo.
var (
	monoBase = C.blocked_now()
	timeBase = time.Now()
	submit   func(i int)
)

func mono() int64 { return int64(monoBase) + time.Since(timeBase).Nanoseconds() }

//export goSubmitItem
func goSubmitItem(i C.int) { submit(int(i)) }

func spinUntil(ns int64) {
	for mono() < ns {
	}
}

func cInts(n int) []C.int64_t {
	return unsafe.Slice((*C.int64_t)(C.calloc(C.size_t(n), 8)), n)
}

func blockedRound(workers, mode, number int, sample [][]int64) [][]int64 {
	holders := 1
	if workers >= 4 {
		holders = workers * 3 / 8
	}
	random := uint32(number)*2654435761 + 1
	jitter := func() int64 {
		random = random*1664525 + 1013904223
		return int64(random>>8) % int64(holdTime/blockedEach/2)
	}
	t0 := mono() + int64(100*time.Millisecond)*int64(holders)
	var over int32
	var finished sync.WaitGroup
	late := make([][4][blockedEach]int64, holders)
	var begun sync.WaitGroup
	begun.Add(holders)
	allDue := cInts(holders * blockedEach) // in the order of the holders' items
	for h := 0; h < holders; h++ {
		h := h
		due := func(i int) int64 {
			return t0 + int64(holdTime/50) + int64(i)*int64(holdTime*9/10/blockedEach) + jitter()
		}
		timers := make([]int64, blockedEach)
		sockDue := cInts(blockedEach)
		fds := unsafe.Slice((*C.int)(C.calloc(blockedEach, 4)), blockedEach)
		for i := 0; i < blockedEach; i++ {
			timers[i] = due(i)
			sockDue[i] = C.int64_t(due(i))
			allDue[i*holders+h] = C.int64_t(due(i))
			p, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
			check(err == nil)
			f := os.NewFile(uintptr(p[0]), "pair")
			c, err := net.FileConn(f)
			check(err == nil)
			f.Close()
			fds[i] = C.int(p[1])
			finished.Add(1)
			i := i
			go func() {
				b := make([]byte, 1)
				k, err := c.Read(b)
				check(k == 1 && err == nil)
				late[h][2][i] = mono() - int64(sockDue[i])
				c.Close()
				syscall.Close(int(fds[i]))
				finished.Done()
			}()
		}
		finished.Add(2*blockedEach + 1)
		go func() {
			for i := 0; i < blockedEach; i++ {
				i := i
				time.AfterFunc(time.Duration(timers[i]-mono()), func() {
					late[h][1][i] = mono() - timers[i]
					finished.Done()
				})
			}
			begun.Done()
			time.Sleep(time.Duration(t0 - mono()))
			for i := 0; i < blockedEach; i++ {
				i, due := i, mono()
				go func() {
					late[h][0][i] = mono() - due
					finished.Done()
				}()
			}
			start := mono()
			if mode == 1 || h > 0 {
				ts := syscall.NsecToTimespec(int64(holdTime))
				for syscall.Nanosleep(&ts, &ts) == syscall.EINTR {
				}
			} else {
				spinUntil(start + int64(holdTime))
			}
			atomic.StoreInt32(&over, 1)
			finished.Done()
		}()
		C.blocked_start(blockedEach, &fds[0], &sockDue[0])
	}
	begun.Wait()
	finished.Add(holders * blockedEach)
	submit = func(k int) {
		go func() {
			late[k%holders][3][k/holders] = mono() - int64(allDue[k])
			finished.Done()
		}()
	}
	C.blocked_start(C.int(holders*blockedEach), nil, &allDue[0])
	if mode == 2 {
		for i := 0; i < 2*(workers-holders); i++ {
			finished.Add(1)
			go func() {
				for atomic.LoadInt32(&over) == 0 {
					spinUntil(mono() + 20000)
					runtime.Gosched()
				}
				finished.Done()
			}()
		}
	}
	finished.Wait()
	for h := range late {
		for k := range sample {
			sample[k] = append(sample[k], late[h][k][:]...)
		}
	}
	return sample
}

func blocked(workers, rounds int) {
	for mode, name := range []string{"spin", "block", "busy"} {
		if mode == 2 && workers == 1 {
			continue
		}
		sample := make([][]int64, 4)
		for i := 0; i < rounds; i++ {
			sample = blockedRound(workers, mode, i, sample)
		}
		for k, kind := range []string{"queued", "timer", "socket", "inbox"} {
			v := sample[k]
			sort.Slice(v, func(i, j int) bool { return v[i] < v[j] })
			n := len(v)
			check(v[0] >= 0)
			emit(fmt.Sprintf("%s.%s.p50", name, kind), n, float64(v[n/2])/1e3, "us")
			emit(fmt.Sprintf("%s.%s.p99", name, kind), n, float64(v[n*99/100])/1e3, "us")
		}
	}
}
