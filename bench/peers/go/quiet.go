package main

// #include "foreign.h"
import "C"

import (
	"runtime"
	"sync/atomic"
	"time"
)

var woken int64

//export goStamp
func goStamp() { go func() { atomic.StoreInt64(&woken, int64(C.foreign_now())) }() }

//export goWoken
func goWoken() C.int64_t { return C.int64_t(atomic.SwapInt64(&woken, 0)) }

// What `work` costs in a second of an otherwise idle process, in seconds of processor time.
func second(work func(stop *int32)) float64 {
	var stop int32
	if work != nil {
		go work(&stop)
	}
	time.Sleep(100 * time.Millisecond)
	t, cpu := time.Now(), cpuSeconds()
	time.Sleep(time.Second)
	cpu = (cpuSeconds() - cpu) / time.Since(t).Seconds()
	atomic.StoreInt32(&stop, 1)
	return cpu
}

func quiet(workers, n int) {
	ns := make([]C.int64_t, n)
	cpu := cpuSeconds()
	C.foreign_wakes(C.long(n), &ns[0])
	cpu = cpuSeconds() - cpu
	v := make([]int64, n)
	for i := range v {
		v[i] = int64(ns[i])
	}
	quantiles("wake.", n, v)
	emit("wake.cpu", n, cpu*1e6/float64(n), "us/wake")
	emit("idle.cpu", 1, second(nil)*1e3, "ms")
	if workers == 1 {
		return
	}
	emit("half.cpu", 1, second(func(stop *int32) {
		for atomic.LoadInt32(stop) == 0 {
			for t := time.Now(); time.Since(t) < 20*time.Microsecond; {
			}
			runtime.Gosched()
		}
	}), "processors")
	trips := 0
	there, back, done := make(chan int), make(chan int), make(chan bool)
	cpu = cpuSeconds()
	second(func(stop *int32) {
		go func() {
			for v := range there {
				back <- v
			}
		}()
		for atomic.LoadInt32(stop) == 0 {
			there <- 0
			<-back
			trips++
		}
		close(there)
		done <- true
	})
	<-done
	emit("pair.cpu", trips, (cpuSeconds()-cpu)*1e6/float64(trips), "us/roundtrip")
}
