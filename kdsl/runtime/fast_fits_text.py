"""The native text that says whether a call fits a record (runtime/fast_text.py has the words of a record).

On the way it notes what the arguments tell: their addresses, the named sizes, the numbers. `%objects` holds the arguments,
positional ones first; the elements of a tuple, list or dict among them are added behind, where the record says.
Read before: runtime/fast.py. Read next: runtime/fast_text.py.
"""

TEXT = """
declare i32 @PyObject_RichCompareBool(ptr, ptr, i32)
declare i64 @PyLong_AsLongLong(ptr)
declare i64 @PyDict_Size(ptr)
declare i32 @PyDict_Next(ptr, ptr, ptr, ptr)

; names and keys: mostly the same object, else two strings that are equal
define internal i1 @same_key(ptr %a, ptr %b) {
entry:
  %same = icmp eq ptr %a, %b
  br i1 %same, label %yes, label %types
types:
  %string = WORD ptr @api 5
  %a.type = WORD ptr %a 1
  %b.type = WORD ptr %b 1
  %a.string = icmp eq ptr %a.type, %string
  %b.string = icmp eq ptr %b.type, %string
  %strings = and i1 %a.string, %b.string
  br i1 %strings, label %compare, label %no
compare:
  %order = call i32 @PyObject_RichCompareBool(ptr %a, ptr %b, i32 2)
  %equal = icmp eq i32 %order, 1
  ret i1 %equal
yes:
  ret i1 true
no:
  ret i1 false
}

define internal i1 @fits(ptr %r, ptr %objects, i64 %given, i64 %keywords, ptr %names, ptr %sizes, ptr %pointers, ptr %numbers) {
entry:
  %position = alloca i64
  %key.place = alloca ptr
  %value.place = alloca ptr
  %ndarray = WORD ptr @api 0
  %float = WORD ptr @api 2
  %n.arguments = WORD i64 %r 1
  %specs = WORD ptr %r 2
  %n.sizes = WORD i64 %r 3
  %n.keywords = WORD i64 %r 16
  %keyword.table = WORD ptr %r 17
  %n.specs = WORD i64 %r 18
  %integer = WORD ptr @api 4
  %as.many = icmp eq i64 %n.arguments, %given
  %as.many.named = icmp eq i64 %n.keywords, %keywords
  %right.number = and i1 %as.many, %as.many.named
  br i1 %right.number, label %keyword, label %miss

; --- the same keywords in the same order
keyword:
  %w = phi i64 [ 0, %entry ], [ %w1, %keyword.one ]
  %w.more = icmp ult i64 %w, %n.keywords
  br i1 %w.more, label %keyword.one, label %forget
keyword.one:
  %w.at = getelementptr ptr, ptr %keyword.table, i64 %w
  %want.name = load ptr, ptr %w.at
  %name.items = getelementptr i8, ptr %names, i64 ITEMS
  %name.at = getelementptr ptr, ptr %name.items, i64 %w
  %have.name = load ptr, ptr %name.at
  %w1 = add i64 %w, 1
  %same.name = call i1 @same_key(ptr %want.name, ptr %have.name)
  br i1 %same.name, label %keyword, label %miss

; --- all sizes unknown
forget:
  %f = phi i64 [ 0, %keyword ], [ %f1, %forget.one ]
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
  %i.more = icmp ult i64 %i, %n.specs
  br i1 %i.more, label %look, label %exact
fits:
  %i1 = add i64 %i, 1
  br label %argument
look:
  %spec.at = mul i64 %i, 8
  %spec = getelementptr i64, ptr %specs, i64 %spec.at
  %object.at = getelementptr ptr, ptr %objects, i64 %i
  %object = load ptr, ptr %object.at
  %type = WORD ptr %object 1
  %kind = WORD i64 %spec 0
  %expected = WORD ptr %spec 1
  %slot = WORD i64 %spec 2
  %count = WORD i64 %spec 3
  %key.table = WORD ptr %spec 4
  %expected.type = WORD ptr %spec 4
  %first.child = WORD i64 %spec 5
  %pointer.at = getelementptr ptr, ptr %pointers, i64 %slot
  switch i64 %kind, label %miss [ i64 0, label %array i64 1, label %same i64 2, label %number i64 3, label %number
                                  i64 4, label %equal i64 5, label %bits i64 6, label %nest i64 7, label %nest i64 8, label %nest
                                  i64 9, label %size ]
same:
  %is.same = icmp eq ptr %object, %expected
  br i1 %is.same, label %fits, label %miss
equal:
  %is.equal.type = icmp eq ptr %type, %expected.type
  br i1 %is.equal.type, label %compared, label %miss
compared:
  %same.value = call i32 @PyObject_RichCompareBool(ptr %object, ptr %expected, i32 2)
  %is.same.value = icmp eq i32 %same.value, 1
  br i1 %is.same.value, label %fits, label %miss
bits:
  %is.a.float = icmp eq ptr %type, %float
  br i1 %is.a.float, label %bits.one, label %miss
bits.one:
  %have.bits = WORD i64 %object 2
  %want.bits = ptrtoint ptr %expected to i64
  %same.bits = icmp eq i64 %have.bits, %want.bits
  br i1 %same.bits, label %fits, label %miss
size:
  %is.integer = icmp eq ptr %type, %integer
  br i1 %is.integer, label %size.one, label %miss
size.one:
  %told = call i64 @PyLong_AsLongLong(ptr %object)
  %told.at = getelementptr i64, ptr %sizes, i64 %slot
  %told.known = load i64, ptr %told.at
  %told.new = icmp eq i64 %told.known, UNKNOWN
  %told.equal = icmp eq i64 %told.known, %told
  store i64 %told, ptr %told.at
  %told.agrees = or i1 %told.new, %told.equal
  br i1 %told.agrees, label %fits, label %miss

; --- a tuple, list or dict: its elements become further objects
nest:
  %is.nest = icmp eq ptr %type, %expected
  br i1 %is.nest, label %nest.kind, label %miss
nest.kind:
  %children = getelementptr ptr, ptr %objects, i64 %first.child
  %is.dict = icmp eq i64 %kind, 8
  br i1 %is.dict, label %dict, label %sequence
sequence:
  %length = WORD i64 %object 2
  %inline = getelementptr i8, ptr %object, i64 ITEMS
  %outside = load ptr, ptr %inline
  %is.tuple = icmp eq i64 %kind, 6
  %items = select i1 %is.tuple, ptr %inline, ptr %outside
  %same.length = icmp eq i64 %length, %count
  br i1 %same.length, label %element, label %miss
element:
  %s = phi i64 [ 0, %sequence ], [ %s1, %element.one ]
  %s.more = icmp ult i64 %s, %count
  br i1 %s.more, label %element.one, label %fits
element.one:
  %element.at = getelementptr ptr, ptr %items, i64 %s
  %element.object = load ptr, ptr %element.at
  %child.at = getelementptr ptr, ptr %children, i64 %s
  store ptr %element.object, ptr %child.at
  %s1 = add i64 %s, 1
  br label %element
dict:
  %dict.length = call i64 @PyDict_Size(ptr %object)
  store i64 0, ptr %position
  %same.dict.length = icmp eq i64 %dict.length, %count
  br i1 %same.dict.length, label %entry.of, label %miss
entry.of:
  %q = phi i64 [ 0, %dict ], [ %q1, %entry.key ]
  %q.more = icmp ult i64 %q, %count
  br i1 %q.more, label %entry.one, label %fits
entry.one:
  %there = call i32 @PyDict_Next(ptr %object, ptr %position, ptr %key.place, ptr %value.place)
  %is.there = icmp ne i32 %there, 0
  br i1 %is.there, label %entry.key, label %miss
entry.key:
  %have.key = load ptr, ptr %key.place
  %want.key.at = getelementptr ptr, ptr %key.table, i64 %q
  %want.key = load ptr, ptr %want.key.at
  %entry.value = load ptr, ptr %value.place
  %entry.at = getelementptr ptr, ptr %children, i64 %q
  store ptr %entry.value, ptr %entry.at
  %q1 = add i64 %q, 1
  %same.key = call i1 @same_key(ptr %have.key, ptr %want.key)
  br i1 %same.key, label %entry.of, label %miss
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
