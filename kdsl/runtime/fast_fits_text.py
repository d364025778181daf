"""The native text that says whether a call fits a record (runtime/fast_text.py has the words of a record).

On the way it notes what the arguments tell: their addresses, the named sizes, the numbers.
Read before: runtime/fast.py. Read next: runtime/fast_text.py.
"""

TEXT = """
define internal i1 @fits(ptr %r, ptr %arguments, i64 %given, ptr %sizes, ptr %pointers, ptr %numbers) {
entry:
  %ndarray = WORD ptr @api 0
  %float = WORD ptr @api 2
  %n.arguments = WORD i64 %r 1
  %specs = WORD ptr %r 2
  %n.sizes = WORD i64 %r 3
  %as.many = icmp eq i64 %n.arguments, %given
  br i1 %as.many, label %forget, label %miss

; --- all sizes unknown
forget:
  %f = phi i64 [ 0, %entry ], [ %f1, %forget.one ]
  %f.more = icmp ult i64 %f, %n.sizes
  br i1 %f.more, label %forget.one, label %argument
forget.one:
  %f.at = getelementptr i64, ptr %sizes, i64 %f
  store i64 UNKNOWN, ptr %f.at
  %f1 = add i64 %f, 1
  br label %forget

; --- one argument after the other
argument:
  %i = phi i64 [ 0, %forget ], [ %i1, %fits ]
  %i.more = icmp ult i64 %i, %n.arguments
  br i1 %i.more, label %look, label %exact
fits:
  %i1 = add i64 %i, 1
  br label %argument
look:
  %spec.at = mul i64 %i, 8
  %spec = getelementptr i64, ptr %specs, i64 %spec.at
  %object.at = getelementptr ptr, ptr %arguments, i64 %i
  %object = load ptr, ptr %object.at
  %type = WORD ptr %object 1
  %kind = WORD i64 %spec 0
  %expected = WORD ptr %spec 1
  %slot = WORD i64 %spec 2
  %pointer.at = getelementptr ptr, ptr %pointers, i64 %slot
  switch i64 %kind, label %miss [ i64 0, label %array i64 1, label %same i64 2, label %number i64 3, label %number ]
same:
  %is.same = icmp eq ptr %object, %expected
  br i1 %is.same, label %fits, label %miss
number:
  %is.float = icmp eq ptr %type, %float
  br i1 %is.float, label %convert, label %miss
convert:
  %double = WORD double %object 2
  %single = fptrunc double %double to float
  %number.at = getelementptr i64, ptr %numbers, i64 %i
  store ptr %number.at, ptr %pointer.at
  %as.single = icmp eq i64 %kind, 2
  br i1 %as.single, label %narrow, label %wide
narrow:
  store float %single, ptr %number.at
  br label %fits
wide:
  store double %double, ptr %number.at
  br label %fits
array:
  %is.array = icmp eq ptr %type, %ndarray
  br i1 %is.array, label %dtype, label %miss
dtype:
  %data = WORD ptr %object 2
  %ndim32 = WORD i32 %object 3
  %ndim = zext i32 %ndim32 to i64
  %shape = WORD ptr %object 4
  %strides = WORD ptr %object 5
  %descr = WORD ptr %object 7
  %flags32 = WORD i32 %object 8
  %flags = zext i32 %flags32 to i64
  %want.ndim = WORD i64 %spec 3
  %axes = WORD ptr %spec 4
  %want.flags = WORD i64 %spec 5
  %item = WORD i64 %spec 6
  %compare = WORD i64 %spec 7
  store ptr %data, ptr %pointer.at
  %same.dtype = icmp eq ptr %descr, %expected
  %same.ndim = icmp eq i64 %ndim, %want.ndim
  %set.flags = and i64 %flags, %want.flags
  %same.flags = icmp eq i64 %set.flags, %want.flags
  %good1 = and i1 %same.dtype, %same.ndim
  %good2 = and i1 %good1, %same.flags
  br i1 %good2, label %axis, label %miss
axis:
  %d = phi i64 [ 0, %dtype ], [ %d1, %axis.fits ]
  %d.more = icmp ult i64 %d, %ndim
  br i1 %d.more, label %extent, label %fits
axis.fits:
  %d1 = add i64 %d, 1
  br label %axis
extent:
  %d2 = mul i64 %d, 2
  %want.at = getelementptr i64, ptr %axes, i64 %d2
  %want = load i64, ptr %want.at
  %have.at = getelementptr i64, ptr %shape, i64 %d
  %have = load i64, ptr %have.at
  %is.named = icmp slt i64 %want, 0
  br i1 %is.named, label %named, label %fixed
fixed:
  %same.extent = icmp eq i64 %want, %have
  br i1 %same.extent, label %step, label %miss
named:
  %name = sub i64 -1, %want
  %known.at = getelementptr i64, ptr %sizes, i64 %name
  %known = load i64, ptr %known.at
  %is.new = icmp eq i64 %known, UNKNOWN
  %is.equal = icmp eq i64 %known, %have
  store i64 %have, ptr %known.at
  %agrees = or i1 %is.new, %is.equal
  br i1 %agrees, label %step, label %miss
step:
  %steps = icmp ne i64 %compare, 0
  br i1 %steps, label %stride, label %axis.fits
stride:
  %want.stride = WORD i64 %want.at 1
  %stride.at = getelementptr i64, ptr %strides, i64 %d
  %have.stride = load i64, ptr %stride.at
  %named.stride = sub i64 %want.stride, NAMED_STRIDE
  %is.fixed = icmp ugt i64 %named.stride, 256
  br i1 %is.fixed, label %fixed.stride, label %name.stride
fixed.stride:
  %same.stride = icmp eq i64 %want.stride, %have.stride
  br i1 %same.stride, label %axis.fits, label %miss
name.stride:
  %elements = sdiv i64 %have.stride, %item
  %rest = srem i64 %have.stride, %item
  %whole = icmp eq i64 %rest, 0
  %step.at = getelementptr i64, ptr %sizes, i64 %named.stride
  %step.known = load i64, ptr %step.at
  %step.new = icmp eq i64 %step.known, UNKNOWN
  %step.equal = icmp eq i64 %step.known, %elements
  store i64 %elements, ptr %step.at
  %step.agrees = or i1 %step.new, %step.equal
  %step.good = and i1 %step.agrees, %whole
  br i1 %step.good, label %axis.fits, label %miss

; --- the very sizes that were checked
exact:
  %sizes.checked = WORD ptr %r 11
  %any.sizes = icmp eq ptr %sizes.checked, null
  br i1 %any.sizes, label %yes, label %exact.one
exact.one:
  %e = phi i64 [ 0, %exact ], [ %e1, %exact.same ]
  %e.more = icmp ult i64 %e, %n.sizes
  br i1 %e.more, label %exact.look, label %yes
exact.look:
  %e.at = getelementptr i64, ptr %sizes, i64 %e
  %e.have = load i64, ptr %e.at
  %e.want.at = getelementptr i64, ptr %sizes.checked, i64 %e
  %e.want = load i64, ptr %e.want.at
  %e.same = icmp eq i64 %e.have, %e.want
  br i1 %e.same, label %exact.same, label %miss
exact.same:
  %e1 = add i64 %e, 1
  br label %exact.one
yes:
  ret i1 true
miss:
  ret i1 false
}
"""
