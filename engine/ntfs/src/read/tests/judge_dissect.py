# Lists every name and the SHA-256 of every data stream of an NTFS volume, as dissect.ntfs reads it.
# Arguments: image, start of the volume in it, length, longest stream to be hashed.
import sys, hashlib
from dissect.ntfs import NTFS
from dissect.ntfs.exceptions import *
from dissect.ntfs.c_ntfs import ATTRIBUTE_TYPE_CODE as T
class Part:
    def __init__(s,f,o,n): s.f,s.o,s.n,s.p=f,o,n,0
    def seek(s,p,w=0):
        s.p = p if w==0 else s.p+p if w==1 else s.n+p
        return s.p
    def tell(s): return s.p
    def read(s,n=-1):
        if n<0: n=s.n-s.p
        n=max(0,min(n,s.n-s.p)); s.f.seek(s.o+s.p); b=s.f.read(n); s.p+=len(b); return b
path,start,length,cap=sys.argv[1],int(sys.argv[2]),int(sys.argv[3]),int(sys.argv[4])
v=NTFS(Part(open(path,'rb'),start,length))
for r in v.mft.segments():
    h=r.header
    if not (h.Flags & 1) or h.BaseFileRecordSegment.SegmentNumberLowPart or h.BaseFileRecordSegment.SequenceNumber: continue
    names=sorted(a.file_name+'' for a in r.attributes.FILE_NAME if a.flags!=2)
    for n in names: print(f"N\t{r.segment}\t{n.encode('utf-16-le','surrogatepass').hex()}")
    streams={a.name for a in r.attributes.DATA}
    for s in sorted(streams):
        size=r.size(s)
        a=[x for x in r.attributes[T.DATA] if x.name==s]
        if size>cap: print(f"S\t{r.segment}\t{s.encode('utf-16-le').hex()}\t{size}\t-"); continue
        # dissect.ntfs 3.16 shows what lies in the clusters behind the valid length; every driver shows zeros.
        valid=min((x.header.header.Form.Nonresident.ValidDataLength for x in a if not x.resident and x.header.header.Form.Nonresident.LowestVcn==0), default=size)
        fh=r.open(s); d=hashlib.sha256(); left=size
        while left>0:
            b=fh.read(min(1<<20,left))
            if not b: break
            at=size-left; keep=max(0,min(len(b),valid-at))
            d.update(b[:keep]+bytes(len(b)-keep)); left-=len(b)
        print(f"S\t{r.segment}\t{s.encode('utf-16-le').hex()}\t{size}\t{d.hexdigest()}")
